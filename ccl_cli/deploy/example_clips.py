"""Example clips for export: from the run's videos, from given files, or generated."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video
from ccl_cli.data.sources import load_data
from ccl_cli.data.video_paths import list_videos
from ccl_cli.errors import DataError
from ccl_cli.evaluation.model import Model

GENERATED = "clips:?classes=2&per_class=8"
_log = logging.getLogger("ccl")


class Examples(NamedTuple):
    """Videos for checking an exported network, and for calibration.

    Attributes:
        what: Description of the videos.
        check: Videos for the comparison; at least one.
        calibration: Videos for calibration; at least one. The same as ``check`` if there are no others.
        labelled: Labelled test videos of the run, whose classes are the model's; may be empty.
    """

    what: str
    check: Sequence[Video]
    calibration: Sequence[Video]
    labelled: Sequence[Video] = ()


def find_examples(model: Model, named: Sequence[Path]) -> Examples:
    """Find the best available videos: named ones, the run's test videos, or generated ones.

    Raises:
        DataError: a named path does not exist or contains no video.
    """
    test: Sequence[Video] = ()
    train: Sequence[Video] = ()
    manifest = model.manifest
    if manifest is not None and manifest.classes == model.artefact.classes:
        test, train = (manifest.split(each).without(manifest.missing(each)) for each in ("test", "train"))
    if named:
        videos = list_videos(named).videos
        if absent := next((video.path for video in videos if not Path(str(video.path)).is_file()), None):
            raise DataError(f"There is no file '{absent}'.", "Give video files or folders with --clips.")
        return Examples("the given files", videos, train or videos, test)
    if test:
        return Examples("test videos of the run", test, train or test, test)
    _log.warning(
        "The run's test videos are not on disk, so generated clips are used instead. Use --clips to give "
        "your own videos."
    )
    generated = load_data(GENERATED)
    return Examples("generated clips", generated.split("test"), generated.split("train"))


def centre_clips(videos: Sequence[Video], clip: Clip) -> Iterator[tuple[Video, Tensor | None]]:
    """Yield the centre clip [3, T, S, S] uint8 of each video; None for unreadable videos."""
    for video in videos:
        try:
            yield video, Window(video, clip).student_view
        except DataError as error:
            _log.warning("%s", error.message)
            yield video, None


def some_clips(videos: Sequence[Video], clip: Clip, count: int) -> Tensor:
    """Stack clips [count, 3, T, S, S] uint8 of evenly spread videos; repeat them if there are fewer.

    Raises:
        DataError: none of them can be read.
    """
    views = [view for _, view in centre_clips(spread(videos, count), clip) if view is not None]
    if not views:
        raise DataError(f"None of the {min(count, len(videos))} example videos can be read.")
    return torch.stack([views[number % len(views)] for number in range(count)])


def spread(videos: Sequence[Video], count: int) -> list[Video]:
    """Select at most ``count`` evenly spread videos."""
    count = min(count, len(videos))
    return [videos[number * len(videos) // count] for number in range(count)]
