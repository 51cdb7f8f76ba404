"""Arguments of ``ccl predict`` and ``ccl embed``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ccl_cli.cli.common import share_videos

if TYPE_CHECKING:
    from ccl_cli.cli.unreadable import Unreadable
    from ccl_cli.config.recipe import Executor
    from ccl_cli.data.video_paths import VideoFiles
    from ccl_cli.evaluation.model import Model


def named_videos(
    paths: Sequence[Path], executor: str | None, part: str | None, num_processes: int
) -> tuple[Model, VideoFiles, Unreadable, Executor | None]:
    """Return the model, this command's part of the videos, those unreadable so far, and the executor."""
    from ccl_cli.executors.part import parse_part

    share = parse_part(part)
    settings = share_videos(executor, num_processes)
    from ccl_cli.cli.unreadable import Unreadable
    from ccl_cli.data.video_paths import list_videos
    from ccl_cli.training.run.folder import split_run

    run, files = split_run(paths)
    videos = list_videos(files).share(share)
    unreadable = Unreadable(len(videos.videos), videos.closed)
    from ccl_cli.evaluation.model import load_student

    return load_student(run), videos, unreadable, settings
