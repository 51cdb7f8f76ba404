"""Clips to show a network: of the videos it was trained for, of files that are named, or drawn by ccl."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import load_data
from ccl_cli.data.video_paths import list_videos
from ccl_cli.errors import DataError
from ccl_cli.evaluation.model import Model

DRAWN = "clips:?classes=2&per_class=8"
_log = logging.getLogger("ccl")


@dataclass(frozen=True)
class Examples:
    """Videos of two kinds: some to check a network on, and others to choose anything on.

    Attributes:
        what: They are called.
        check: At least one.
        choose: At least one; the same as ``check`` where there are no others.
        labelled: ``check``, if its labels are those of the model; else none.
    """

    what: str
    check: tuple[Video, ...]
    choose: tuple[Video, ...]
    labelled: tuple[Video, ...] = ()


def find_examples(model: Model, named: Sequence[Path]) -> Examples:
    """The best videos there are for a model.

    Args:
        model: The student; a run's manifest lies beside its file.
        named: Files and folders that the user names; the run's labelled videos still judge its accuracy.

    Raises:
        DataError: a named path is absent or holds no video.
    """
    manifest = model.manifest
    if manifest is not None and manifest.classes != model.artefact.classes:
        manifest = None
    test, train = (_present(manifest, split) for split in ("test", "train"))
    if named:
        videos = _named(named)
        return Examples("the named files", videos, train or videos, test)
    if test:
        return Examples("test videos of the run", test, train or test, test)
    _log.warning(
        "The run's test videos are not here: clips that ccl draws itself stand in for them. "
        "Name files of yours with --clips."
    )
    drawn = load_data(DRAWN)
    return Examples("clips that ccl drew itself", drawn.split("test"), drawn.split("train"))


def center_clips(videos: Sequence[Video], clip: Clip) -> Iterator[tuple[Video, Tensor | None]]:
    """The window around each video's middle as the student sees it; None where it cannot be read.

    Shapes:
        clip: [3, T, S, S] uint8.
    """
    for video in videos:
        try:
            yield video, Window(video, clip).student_view
        except DataError as error:
            _log.warning("%s", error.message)
            yield video, None


def some_clips(videos: Sequence[Video], clip: Clip, count: int) -> Tensor:
    """Clips of so many videos, spread evenly; where there are fewer, they are repeated.

    Shapes:
        returns: [count, 3, T, S, S] uint8.

    Raises:
        DataError: none of them can be read.
    """
    read = (view for _, view in center_clips(spread(videos, count), clip) if view is not None)
    views = list(read)
    if not views:
        raise DataError(f"None of the {min(count, len(videos))} videos to look at can be read.")
    return torch.stack([views[number % len(views)] for number in range(count)])


def spread(videos: Sequence[Video], count: int) -> list[Video]:
    """At most ``count`` of the videos, from the first to the last."""
    count = min(count, len(videos))
    return [videos[number * len(videos) // count] for number in range(count)]


def _present(manifest: Manifest | None, split: str) -> tuple[Video, ...]:
    if manifest is None:
        return ()
    missing = set(manifest.missing(split))
    return tuple(video for video in manifest.split(split) if video not in missing)


def _named(paths: Sequence[Path]) -> tuple[Video, ...]:
    """Files, and all videos below folders."""
    videos = list_videos(paths).videos
    if absent := next((video.path for video in videos if not Path(str(video.path)).is_file()), None):
        raise DataError(
            f"There is no file '{absent}'.", "Name video files, or folders of them, with --clips."
        )
    return videos
