"""Video files and folders of videos that a user names, without labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ccl_cli.data.manifest import Video
from ccl_cli.data.sources import SUFFIXES, files_below, unique_ids
from ccl_cli.errors import DataError
from ccl_cli.executors.part import Part


@dataclass(frozen=True)
class VideoFiles:
    """A list of video files.

    Attributes:
        videos: Each file once, with the path as the user writes it: relative paths stay relative.
        closed: Reasons by folder, for folders that cannot be read.
    """

    videos: tuple[Video, ...]
    closed: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The paths of the videos."""
        return [str(video.path) for video in self.videos]

    def share(self, part: Part) -> VideoFiles:
        """A part of the videos. The first part contains the unreadable folders."""
        return VideoFiles(tuple(part.of(self.videos)), self.closed if part.number == 1 else {})


def list_videos(paths: str | Path | Sequence[str | Path]) -> VideoFiles:
    """List files, and the videos below folders in sorted order.

    A file that is named itself is listed with any suffix, and even if it is missing, which is reported when
    it is read. An id is the path below the named folder, without suffix if this is unique, as in the data
    source ``folder``.

    Raises:
        DataError: a folder contains no video.
    """
    closed: dict[str, str] = {}
    by_path: dict[str, tuple[Path, str]] = {}  # by absolute path
    for named in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        for path, below in _of(named, closed):
            by_path.setdefault(os.path.abspath(path), (path, below))  # noqa: PTH100  (links stay as they are)
    ids = unique_ids([below for _, below in by_path.values()])
    counts = Counter(ids)
    named_ids = zip(by_path.values(), ids, strict=True)
    videos = (
        Video(key if counts[key] == 1 else str(path), path, None, "test") for (path, _), key in named_ids
    )
    return VideoFiles(tuple(videos), closed)


def _of(named: Path, closed: dict[str, str]) -> list[tuple[Path, str]]:
    """Videos of one named path, each with its path below the named folder."""
    if not os.path.isdir(named):  # noqa: PTH112  (False too where the path is too long or closed)
        return [(named, named.name)]
    before = len(closed)
    paths = [path for path in files_below(named, closed) if path.suffix.lower() in SUFFIXES]
    if not paths and len(closed) == before:
        raise DataError(
            f"The folder '{named}' holds no videos.",
            f"Looked for: {' '.join(sorted(SUFFIXES))}. Name a file of another kind by itself.",
        )
    return [(path, path.relative_to(named).as_posix()) for path in paths]
