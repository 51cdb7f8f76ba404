"""Small real media files for tests, and a plain sequential decode to compare with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation

from ccl_cli.config.recipe import Clip, Evaluation
from ccl_cli.data.clips.evaluation_clips import read_evaluation_clips
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.shards.encode import Settings, Source, encode
from ccl_cli.data.shards.index import read_shard, write_shard
from ccl_cli.data.video.container import SCALING  # several threads overwrite each other's edges at odd widths
from ccl_cli.data.video.reader import DecodedClip
from ccl_cli.data.video.storage import Packed

RATE = 25


def pictures(count: int, width: int = 96, height: int = 64) -> np.ndarray:
    """[T, H, W, 3] uint8: a texture that moves, so that no two frames are alike."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    texture = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
    return np.stack([np.roll(texture, (2 * k, 3 * k), (0, 1)) for k in range(count)])


def write(
    path: Path,
    images: np.ndarray | None = None,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    b_frames: int = 0,
    options: dict[str, str] | None = None,
    times: list[int] | None = None,
    colour_range: int | None = None,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    sound_rate: int = 32000,
    faststart: bool = False,
) -> Path:
    """Write frames [T, H, W, 3] at 25 per second (or at ``times`` in ms) and mono sound.

    ``faststart`` puts the index of an mp4 file before the pictures: cut off, it can still be read.
    """
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as file:
        video = None if images is None else _video(file, images, codec, pix_fmt, gop, b_frames, options)
        audio = None if sound is None else file.add_stream(sound_codec, rate=sound_rate, layout="mono")
        if video is not None:
            if times is not None:
                video.codec_context.time_base = Fraction(1, 1000)
            for index, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
                    format=pix_fmt, dst_color_range=colour_range, **SCALING
                )
                frame.time_base = Fraction(1, RATE if times is None else 1000)
                frame.pts = index if times is None else times[index]
                file.mux(video.encode(frame))
            file.mux(video.encode(None))
        if audio is not None:
            for packet in _encoded(audio, sound, sound_rate):
                file.mux(packet)
    return path


def _video(file, images, codec, pix_fmt, gop, b_frames, options):
    video = file.add_stream(codec, rate=RATE, options=options or {})
    video.height, video.width = images.shape[1:3]
    video.pix_fmt = pix_fmt
    video.codec_context.gop_size = gop
    video.codec_context.max_b_frames = b_frames
    video.codec_context.thread_count = 1
    return video


def _encoded(audio, sound, rate):
    resampler = av.AudioResampler(format=audio.codec_context.format, layout="mono", rate=rate)
    frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    for part in [*resampler.resample(frame), *resampler.resample(None), None]:
        yield from audio.encode(part)


def sequential(path: Path, short_side: int = 10_000) -> np.ndarray:
    """[N, H, W, 3]: every frame that decoding from the start yields, turned by the angle the file asks for."""
    images = []
    with av.open(str(path), metadata_errors="replace") as file:
        video = file.streams.best("video")
        video.codec_context.thread_count = 1  # threads conceal damage in their own way
        for packet in file.demux(video):
            try:
                images.extend(_image(frame, short_side) for frame in packet.decode())
            except av.FFmpegError:
                continue
    return np.stack(images)


def _image(frame, short_side: int) -> np.ndarray:
    scale = min(1.0, short_side / min(frame.width, frame.height))
    size = round(frame.width * scale), round(frame.height * scale)
    form = "rgb24" if size == (frame.width, frame.height) else "gbrp"
    rgb = frame.reformat(*size, format=form, interpolation=Interpolation.AREA, **SCALING)
    return np.rot90(rgb.to_ndarray(), frame.rotation // 90)


def looped(images: np.ndarray, first: int, count: int) -> np.ndarray:
    """Frames from ``first``, repeated from there where they do not suffice."""
    rest = images[first : first + count]
    return rest[np.arange(count) % len(rest)]


def iter_windows(path, length, stride, *, short_side=256, start=None, end=None) -> Iterator[DecodedClip]:
    """Sliding windows of consecutive frames."""
    video, clip = Video("v", path, 0, "test", start, end), Clip(frames=length, short_side=short_side)
    return read_evaluation_clips(video, clip, Evaluation(stride=stride))


def packed(path: Path, settings: Settings, start: float | None = None, end: float | None = None) -> Packed:
    """Encode one video, put it into a shard beside it, and say where it lies there."""
    shard = path.with_name(f"{len(list(path.parent.iterdir()))}.tar")
    write_shard(shard, [encode(Source("a/b", path, "train", ({"id": "a/b"},), start, end), settings)], 1)
    (listed,) = read_shard(shard)
    return Packed(str(shard), listed.key, listed.members)


def display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Set the matrix (a b c d) in the header of an mp4 file's first track."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = matrix
    values = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], ">i4")
    content[at : at + 36] = values.tobytes()
    path.write_bytes(content)


def damage_sound(path: Path) -> None:
    """Overwrite every packet of the file's sound, in place."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        for packet in file.demux(audio=0):
            if packet.size:
                content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)


def touch(*paths: Path) -> None:
    """Put a file of one byte at each path."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def counts(manifest: Manifest) -> dict[tuple[str, str], int]:
    """Number of videos by split and class name."""
    return Counter((video.split, manifest.class_name(video)) for video in manifest.videos)
