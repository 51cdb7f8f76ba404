"""Small real videos and clips for checking teachers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.samplers import FrameRange, Frames
from ccl_cli.data.clips.transforms import eval_view
from ccl_cli.data.clips.window import Window
from ccl_cli.data.manifest import Video
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.teachers import Preprocess

CLIP = Clip(frames=4, size=64)
_FPS, _RATE, _HEIGHT, _WIDTH = 25, 32_000, 72, 96


class Clips(NamedTuple):
    """Generated mp4 files.

    Attributes:
        one: Moving colour waves and a tone, half a second long.
        other: Other waves and another tone.
        silent: Silent audio track.
        mute: No audio track.
        brief: Four frames, 0.16 s, which every audio teacher uses completely.
    """

    one: Video
    other: Video
    silent: Video
    mute: Video
    brief: Video


@contextmanager
def made_clips() -> Iterator[Clips]:
    """Yield the clips in a temporary folder."""
    with TemporaryDirectory(prefix="ccl-clips-") as folder:
        frames = {"brief": 4}
        loudness = {"silent": 0.0, "mute": None}
        yield Clips(
            *(
                _made(Path(folder), name, number, frames.get(name, 12), loudness.get(name, 0.4))
                for number, name in enumerate(Clips._fields)
            )
        )


def draw(video: Video, seed: int = 0, *, at: int = 0, frames: int = CLIP.frames) -> Window:
    """Draw a window as in training, starting at frame ``at`` of the video."""

    def sampler(available: FrameRange, clip: Clip, rng: np.random.Generator) -> Frames:
        first = available.first + min(at, available.count - 1)
        return range(first, first + clip.frames)

    return Window(
        video,
        CLIP.model_copy(update={"frames": frames}),
        sampler,
        rng=np.random.default_rng([seed, 1]),
        batch_rng=np.random.default_rng([seed, 2]),
        training=True,
    )


def evaluated(video: Video, seed: int = 0) -> Window:
    """Draw a window as in evaluation, where nothing may depend on the seed."""
    window = draw(video, seed)
    window.training = False
    return window


def cached_view(window: Window, first: int, count: int) -> Window:
    """Return a window with ``count`` frames of another window, from ``first`` on, as in a cache."""
    frames = window.frames[first : first + count]
    seconds = (window.end - window.start) / len(window.frames)
    view = Window(window.video, window.clip)
    view.frames, view.student_view = frames, eval_view(frames, window.clip)
    view.start = window.start + first * seconds
    view.end = view.start + count * seconds
    return view


def preprocessed(job: tuple[bytes, Video]) -> Tensor | None:
    """Preprocess a video with a pickled preprocessing; runs in another process."""
    pickled, video = job
    preprocess: Preprocess = pickle.loads(pickled)
    return preprocess(evaluated(video))


def _made(folder: Path, name: str, number: int, frames: int, loudness: float | None) -> Video:
    path = folder / f"{name}.mp4"
    rng = np.random.default_rng(number)
    time = np.arange(round(frames / _FPS * _RATE)) / _RATE
    tone = np.sin(2 * np.pi * 330 * (1 + number) * time) + rng.normal(0, 0.1, len(time))
    sound = None if loudness is None else (loudness * tone).clip(-1, 1).astype(np.float32)
    write_clip(path, _shades(rng, frames), _FPS, sound, _RATE)
    return Video(name, path, number % 2, "train")


def _shades(rng: np.random.Generator, frames: int) -> NDArray[np.uint8]:
    """Moving coloured waves [T, H, W, 3], in which all frames and all regions differ."""
    down, across = np.mgrid[:_HEIGHT, :_WIDTH] / _HEIGHT
    phase = 2 * np.pi * np.arange(frames)[:, None, None, None] / 12
    turns, tilt, shift = rng.uniform(2, 9, (3, 3))
    waves = np.sin(turns * across[..., None] + tilt * down[..., None] + shift + phase)
    pixels: NDArray[np.uint8] = (128 + 100 * waves).astype(np.uint8)
    return pixels
