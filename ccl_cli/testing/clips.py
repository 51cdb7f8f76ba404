"""Small real videos and clips for checking teachers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
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
    """Generated mp4 files of noise.

    Attributes:
        one: Half a second of pictures and sound.
        other: Other pictures and another sound.
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
        yield Clips(*(_made(Path(folder, f"{name}.mp4"), seed) for seed, name in enumerate(Clips._fields)))


def _made(path: Path, seed: int) -> Video:
    rng = np.random.default_rng(seed)
    frames = 4 if path.stem == "brief" else 12
    # Noise in blocks survives the compression: all frames and all regions differ.
    blocks = rng.integers(0, 256, (frames, _HEIGHT // 8, _WIDTH // 8, 3), np.uint8)
    sound = rng.uniform(-0.5, 0.5, frames * _RATE // _FPS).astype(np.float32)
    tracks = {"mute": None, "silent": np.zeros_like(sound)}
    write_clip(path, blocks.repeat(8, axis=1).repeat(8, axis=2), _FPS, tracks.get(path.stem, sound), _RATE)
    return Video(path.stem, path, seed % 2, "train")


def draw(
    video: Video, seed: int = 0, *, at: int = 0, frames: int = CLIP.frames, training: bool = True
) -> Window:
    """Draw a window, starting at frame ``at`` of the video."""

    def sampler(available: FrameRange, clip: Clip, rng: np.random.Generator) -> Frames:
        first = available.first + min(at, available.count - 1)
        return range(first, first + clip.frames)

    return Window(
        video,
        CLIP.model_copy(update={"frames": frames}),
        sampler,
        rng=np.random.default_rng([seed, 1]),
        batch_rng=np.random.default_rng([seed, 2]),
        training=training,
    )


def evaluated(video: Video, seed: int = 0) -> Window:
    """Draw a window as in evaluation, where nothing may depend on the seed."""
    return draw(video, seed, training=False)


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
