"""Processes that die or hang in the middle of an epoch, over a video or over none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips import replacement
from ccl_cli.data.clips.centre import MiddleWindows, middle_loader
from ccl_cli.data.clips.dataset import Loaded, TrainingSet, training_loader
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.clips.window import Window
from ccl_cli.data.clips.windows import SlidingWindows, window_loader
from ccl_cli.data.manifest import Video
from ccl_cli.data.sources import load_data

CLIP = Clip(frames=4, size=32, short_side=36)
pytestmark = pytest.mark.slow


class Treacherous:
    """Does something to its own process over one video, each time or the first time only."""

    shape: tuple[int, ...] = (3,)
    dtype = torch.float32

    def __init__(self, video: str, what: str, once: Path | None = None) -> None:
        self.video, self.what, self.once = video, what, once

    def __call__(self, window: Window) -> torch.Tensor:
        if window.video.id == self.video and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            if self.what == "hang":
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
                time.sleep(600)
            os.kill(os.getpid(), getattr(signal, self.what))
        return window.frames.float().mean((0, 1, 2))


@pytest.fixture
def videos(clips_folder) -> tuple[Video, ...]:
    return load_data(f"folder:{clips_folder}/set").split("train")


def epochs(videos: tuple[Video, ...], preprocess: Treacherous, workers: int) -> list[Loaded]:
    """Two epochs of training batches."""
    dataset = TrainingSet(videos, CLIP, {"image": preprocess}, 0)
    sampler = EpochSampler(len(videos), 4, 2, accumulation=2)
    return list(training_loader(dataset, sampler, workers=workers, pin_memory=False))


def same(one: list[Loaded], other: list[Loaded]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.batch.video, b.batch.video)
        and torch.equal(a.batch.rows, b.batch.rows)
        and torch.equal(a.batch.inputs["image"].value, b.batch.inputs["image"].value)
        and a.states == b.states
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("what", ["SIGKILL", "SIGSEGV"])
def test_a_process_that_dies_once_costs_nothing(videos, tmp_path, what):
    wanted = epochs(videos, Treacherous("", ""), 0)
    once = Treacherous(videos[5].id, what, tmp_path / "died")
    got = epochs(videos, once, 2)
    assert (tmp_path / "died").exists()
    assert same(wanted, got)
    assert not any(loaded.unreadable for loaded in got)


def test_a_video_that_ends_each_process_is_unreadable_and_no_other(videos, caplog):
    got = epochs(videos, Treacherous(videos[5].id, "SIGSEGV"), 2)
    assert len(got) == 12
    unreadable = {row: reason for loaded in got for row, reason in loaded.unreadable.items()}
    assert unreadable == {5: f"'{videos[5].path}' was not read: the processes that read it ended."}
    assert {row for loaded in got for row in loaded.batch.rows.tolist()} == set(range(12)) - {5}
    assert caplog.text.count("another one takes its place") == 2


def test_a_video_that_takes_too_long_is_unreadable_and_no_other(videos, monkeypatch):
    monkeypatch.setattr(replacement, "PATIENCE", 2.0)
    monkeypatch.setattr(replacement, "_LOOK_SECONDS", 1.0)
    dataset = MiddleWindows(videos, CLIP, {"image": Treacherous(videos[5].id, "hang")})
    looked = list(middle_loader(dataset, batch_size=2, workers=2, pin_memory=False))
    assert [row for each in looked for row in each.rows.tolist()] == list(range(12))
    unreadable = {row: reasons for each in looked for row, reasons in each.unreadable.items()}
    assert unreadable == {5: {"image": f"'{videos[5].path}' was not read: it took longer than 2 s."}}


def test_evaluation_goes_on_where_a_process_died(videos, caplog):
    dataset = SlidingWindows(videos, CLIP, stride=4, chunk=1)
    wanted = views(window_loader(dataset, workers=0, pin_memory=False), lambda number: None)

    def kill(number: int) -> None:
        if number == 2:
            os.kill(next(iter(children())), signal.SIGKILL)

    got = views(window_loader(dataset, workers=2, pin_memory=False), kill)
    assert wanted.keys() == got.keys() == set(range(12))
    assert all(torch.equal(wanted[row], got[row]) for row in wanted)
    assert "another one takes its place" in caplog.text


def views(chunks, after: Callable[[int], None]) -> dict[int, torch.Tensor]:
    """All windows of each video, in order; a video is finished once."""
    found: dict[int, list[torch.Tensor]] = {}
    finished = []
    for number, chunk in enumerate(chunks):
        for row, window in zip(chunk.rows.tolist(), chunk.windows, strict=True):
            found.setdefault(row, []).append(window)
        finished += chunk.finished
        after(number)
    assert sorted(finished) == sorted(found)
    return {row: torch.stack(windows) for row, windows in found.items()}


def children() -> list[int]:
    """Processes that read for this one: of the server that it started."""
    from multiprocessing import forkserver

    server = forkserver._forkserver._forkserver_pid
    return [int(each) for each in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
