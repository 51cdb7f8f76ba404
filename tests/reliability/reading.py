"""One file through everything that reads files, in a process of which the time and the memory are measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from ccl_cli.config.recipe import Clip
from ccl_cli.data.checks.inspect import Subject, decode, look
from ccl_cli.data.clips.dataset import Sample, TrainingSet
from ccl_cli.data.clips.epoch_sampler import Draw
from ccl_cli.data.clips.window import Window
from ccl_cli.data.clips.windows import SlidingWindows
from ccl_cli.data.manifest import Video
from ccl_cli.data.video.reader import iter_windows, open_video, read_frames
from ccl_cli.data.video.sound import read_audio
from ccl_cli.errors import DataError

CLIP = Clip(frames=8, size=48, short_side=56)


class Outcome(NamedTuple):
    """Of one file.

    Attributes:
        read: Whether training read it.
        reason: Why not.
        seconds: Of this process's time, spent on all of it.
        megabytes: The most memory that it took beyond what the process had before.
    """

    read: bool
    reason: str
    seconds: float
    megabytes: float


class Listens:
    """Asks for ten seconds of sound at 32 kHz, as the audio teachers do."""

    shape: tuple[int, ...] = (1,)
    dtype = torch.float32

    def __call__(self, window: Window) -> torch.Tensor | None:
        sound = window.audio(32000, 10.0)
        if sound is None:
            return None
        assert sound.ndim == 1
        assert len(sound) <= 320_000
        assert bool((sound.abs() <= 1).all())
        return sound.abs().max()[None]


def read(name: str) -> Outcome:
    """Read a file in every way; whatever is no value and no sentence is raised."""
    return _measured(_every_way, Path(name))


def look_and_read_the_middle(name: str) -> Outcome:
    """Look at a file and read one window, as training does."""
    return _measured(_look_and_middle, Path(name))


def _measured(work: Callable[[Path], tuple[bool, str]], path: Path) -> Outcome:
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    begin = time.process_time()
    is_read, reason = work(path)
    return Outcome(is_read, reason, time.process_time() - begin, _memory("VmHWM") - before)


def _look_and_middle(path: Path) -> tuple[bool, str]:
    found = look(Subject(str(path)))
    read_frames(path, found.frames // 2, 8, short_side=56)
    return True, ""


def _every_way(path: Path) -> tuple[bool, str]:
    try:
        fault = look(Subject(str(path))).fault
    except DataError as error:  # FFmpeg calls the end of some files an error of the disk
        fault = error.message
    said = [
        _said(lambda: _frames(path)),
        _said(lambda: _windows(path)),
        _said(lambda: _sound(path)),
        _said(lambda: decode(Subject(str(path)))),
    ]
    video = Video("a", path, 0, "train")
    sample = TrainingSet([video], CLIP, {"audio": Listens()}, 0)[Draw(0, 0, 0)]
    chunks = list(SlidingWindows([video], CLIP, stride=8, chunk=4))
    unreadable = {row: why for chunk in chunks for row, why in chunk.unreadable.items()}
    assert [row for chunk in chunks for row in chunk.finished] == [0], "counted other than once"
    assert bool(unreadable) == (not sum(len(chunk.windows) for chunk in chunks))
    assert not any("Error: " in why for why in unreadable.values()), unreadable
    if isinstance(sample, Sample):
        assert sample.video.shape == (3, 8, 48, 48)
        assert sample.video.dtype == torch.uint8
        assert not sample.unreadable
        return True, ""
    assert isinstance(sample, DataError), sample.message
    reason = sample.message.partition("the first: ")[2] or sample.message
    assert fault or said[0] or said[2], f"only training cannot read it: {reason}"
    return False, reason.replace(str(path), "")


def _frames(path: Path) -> None:
    info = open_video(path).metadata
    for first in {0, info.frames // 2, info.frames - 1}:
        clip = read_frames(path, first, 8, short_side=56)
        assert clip.frames.dtype == torch.uint8
        assert clip.frames.shape[0] == 8
        assert min(clip.frames.shape[1:3]) <= 56
        assert clip.frames.shape[3] == 3


def _windows(path: Path) -> None:
    for clip in iter_windows(path, 8, 8, short_side=56):
        assert clip.frames.shape[0] == 8
        assert clip.start == clip.start


def _sound(path: Path) -> None:
    sound = read_audio(path, centre=0.4, seconds=10.0, rate=32000)
    assert sound.samples is None or len(sound.samples) <= 320_000


def _said(call: Callable[[], object]) -> str:
    """The sentence with which it is refused; "" where it is not."""
    try:
        call()
    except DataError as error:
        return error.message
    return ""


def _memory(kind: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    return 0.0
