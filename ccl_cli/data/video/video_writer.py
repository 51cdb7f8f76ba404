"""Writing of a clip as an mp4 file with H.264 pictures and AAC sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer

from ccl_cli.data.video.container import SCALING
from ccl_cli.utils.files import atomic_path

Array = np.ndarray[Any, np.dtype[Any]]


def write_clip(path: Path, frames: Array, fps: float, sound: Array | None = None, rate: int = 32000) -> None:
    """Write one mp4 file atomically. The same input gives the same bytes.

    Args:
        path: Output file; its folder is created.
        frames: [T, H, W, 3] uint8 RGB with even H and W.
        fps: Frames per second.
        sound: [n] float32 mono in [-1, 1]; None writes no audio track.
        rate: Samples per second, Hz.

    Raises:
        OSError: the file cannot be written.
    """
    with (
        atomic_path(path) as temporary,
        # bitexact: neither the time nor the library's version is written.
        av.open(str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}) as container,
    ):
        video = _video_stream(container, fps, frames.shape[2], frames.shape[1])
        audio = None if sound is None else container.add_stream("aac", rate=rate, layout="mono")
        for index, image in enumerate(frames):
            drawn = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            picture = drawn.reformat(format="yuv420p", **SCALING)  # the encoder would use all cores for it
            picture.pts = index
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            samples.sample_rate, samples.pts = rate, 0
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))


def _video_stream(container: OutputContainer, fps: float, width: int, height: int) -> Any:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    # x264's AVX-512 code for mbtree does not give the same bytes in every run.
    options = {"x264-params": "mbtree=0"} if codec == "libx264" else {}
    stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1  # the bytes must not depend on the number of cores
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    return stream
