"""Clips per second from files and from shards: a window of frames at a random place, by every way there is.

    python benchmarks/input.py VIDEO... [--frames 16] [--short-side 128] [--reads 15] [--rounds 3]

All ways read the same windows in turns, one thread each; medians. Seconds are of the processor, so that
others on the machine do not count; files are in the page cache. Nothing is kept between two reads, as in the
first epoch; "later epochs" keeps the index of each file's frames, as training does. The first video is also
made into a 720p file. "wrong" counts reads whose first frame is not the one that was asked for. Of other
packages those that are installed take part: torchcodec, decord, pytorchvideo, and h5py for the way of the
published code: JPEG frames of 240 pixels in an HDF5 file, read with PIL.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from time import process_time
from typing import Literal

import av
import numpy as np
import torch
from measuring import arguments, table
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from ccl_cli.data.shards.encode import Settings, Source, encode
from ccl_cli.data.shards.index import read_shard, write_shard
from ccl_cli.data.video import reader
from ccl_cli.data.video.reader import open_video, read_frames
from ccl_cli.data.video.sound import read_audio
from ccl_cli.data.video.storage import Packed

Way = Callable[[int, int], np.ndarray]  # first frame and number of frames to [T, H, W, 3]
HDF5, MADE_SMALLER = "HDF5: 240 px JPEG, PIL", "HDF5: 240 px JPEG, PIL, made as small"
PACKED = [("jpeg", 75), ("jpeg", 85), ("jpeg", 95), ("mp4", 17), ("mp4", 20), ("mp4", 26)]


def scaled(width: int, height: int, side: int) -> tuple[int, int]:
    """Size with a short side of this length."""
    scale = side / min(width, height)
    return round(width * scale), round(height * scale)


def plain_pyav(path: Path, side: int) -> Way:
    def read(first: int, count: int) -> np.ndarray:
        with av.open(str(path)) as file:
            video = file.streams.video[0]
            video.codec_context.thread_count = 1
            rate = video.average_rate
            wanted = (video.start_time or 0) + round(first / rate / video.time_base)
            file.seek(wanted, stream=video)
            images = []
            for frame in file.decode(video):
                if frame.pts is None or frame.pts >= wanted - 1:
                    size = scaled(frame.width, frame.height, side)
                    images.append(frame.reformat(*size).to_ndarray(format="rgb24"))
                if len(images) == count:
                    break
        return np.stack(images)

    return read


def torchcodec(path: Path, side: int, mode: Literal["exact", "approximate"] = "exact") -> Way:
    from torchcodec.decoders import VideoDecoder

    def read(first: int, count: int) -> np.ndarray:
        decoder = VideoDecoder(str(path), seek_mode=mode, num_ffmpeg_threads=1)
        frames = decoder.get_frames_in_range(first, first + count).data
        return tv.resize(frames, [side], antialias=True).permute(0, 2, 3, 1).numpy()

    return read


def decord(path: Path, side: int) -> Way:
    from decord import VideoReader, cpu

    info = open_video(path).metadata
    width, height = scaled(info.width, info.height, side)

    def read(first: int, count: int) -> np.ndarray:
        reader = VideoReader(str(path), ctx=cpu(0), num_threads=1, width=width, height=height)
        return reader.get_batch(range(first, first + count)).asnumpy()

    return read


def pytorchvideo(path: Path, side: int) -> Way:
    from pytorchvideo.data.encoded_video import EncodedVideo

    info = open_video(path).metadata

    def read(first: int, count: int) -> np.ndarray:
        video = EncodedVideo.from_path(str(path), decode_audio=False)
        frames = video.get_clip(info.time(first), info.time(first + count) - 1e-6)["video"]
        video.close()
        return tv.resize(frames.transpose(0, 1), [side]).permute(0, 2, 3, 1).to(torch.uint8).numpy()

    return read


def official(path: Path, folder: Path, side: int | None = None) -> tuple[Way, int]:
    import h5py

    frames = read_frames(path, 0, open_video(path).metadata.frames, short_side=240).frames.numpy()
    store = folder / f"{path.stem}.hdf5"
    with h5py.File(store, "w") as file:
        held = file.create_dataset("video", (len(frames),), h5py.special_dtype(vlen=np.uint8))
        for number, frame in enumerate(frames):
            held[number] = np.frombuffer(jpeg(frame), np.uint8)

    def read(first: int, count: int) -> np.ndarray:
        with h5py.File(store, "r") as file:
            held = file["video"]
            images = [Image.open(io.BytesIO(held[n])).convert("RGB") for n in range(first, first + count)]
        if side:
            size = scaled(*images[0].size, side)
            images = [image.resize(size, Image.Resampling.BILINEAR) for image in images]
        return np.stack([np.asarray(image) for image in images])

    return read, store.stat().st_size


def jpeg(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG")
    return file.getvalue()


def ours(path: Path | Packed, side: int, *, later: bool = False) -> Way:
    def read(first: int, count: int) -> np.ndarray:
        reader._small_video.cache_clear()
        if not later:
            reader._readers = reader._ReaderCache()
        return read_frames(path, first, count, short_side=side).frames.numpy()

    return read


def pack(path: Path, folder: Path, form: str, quality: int, side: int) -> tuple[Packed, int]:
    settings = Settings(side, None, form, quality)
    shard = folder / f"{path.stem}-{form}-{quality}.tar"
    write_shard(shard, [encode(Source("v", path, "train", (), None, None), settings)], 1)
    (sample,) = read_shard(shard)
    picture = sum(member.size for member in sample.members if member.suffix != "wav")
    return Packed(str(shard), sample.key, sample.members), picture


def as_720p(path: Path, folder: Path) -> Path:
    """A film as one finds it: 1280x720, two B-frames, a key frame every ten seconds."""
    made = folder / "720p.mp4"
    info = open_video(path).metadata
    rate = Fraction(round(info.frames / info.duration))
    with av.open(str(made), "w") as file:
        video = file.add_stream("libx264", rate=rate, options={"crf": "21"})
        video.width, video.height, video.pix_fmt = 1280, 720, "yuv420p"
        video.codec_context.gop_size = 10 * int(rate)
        for number, image in enumerate(open_video(path).frames(range(info.frames), short_side=10_000)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image)).reformat(1280, 720, "yuv420p")
            frame.pts, frame.time_base = number, 1 / rate
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
    return made


def ways(path: Path, folder: Path, side: int) -> Iterator[tuple[str, Way, int]]:
    """Name, way and bytes of each that is there; a line for each that is not."""
    size = path.stat().st_size
    yield "file: ccl", ours(path, side), size
    yield "file: ccl, later epochs", ours(path, side, later=True), size
    others: dict[str, Callable[[], tuple[Way, int]]] = {
        "file: PyAV": lambda: (plain_pyav(path, side), size),
        "file: torchcodec": lambda: (torchcodec(path, side), size),
        "file: torchcodec, places guessed from the header": lambda: (
            torchcodec(path, side, "approximate"),
            size,
        ),
        "file: decord": lambda: (decord(path, side), size),
        "file: pytorchvideo": lambda: (pytorchvideo(path, side), size),
        HDF5: lambda: official(path, folder),
        MADE_SMALLER: lambda: official(path, folder, side),
    }
    for name, make in others.items():
        try:
            way, held = make()
        except (ImportError, OSError, RuntimeError) as error:
            print(f"{name} is left out: {type(error).__name__}: {str(error).splitlines()[0]}")
        else:
            yield name, way, held
    for form, quality in PACKED:
        location, held = pack(path, folder, form, quality, side)
        yield f"shards: {form} {quality}", ours(location, side), held


def is_first(image: np.ndarray, reference: np.ndarray, first: int) -> bool:
    """Whether a picture is the reference's frame ``first`` rather than one within three of it."""
    low = max(0, first - 3)
    small, *near = (
        tv.resize(torch.tensor(each).permute(2, 0, 1), [32, 32]).float()
        for each in (image, *reference[low : first + 4])
    )
    apart = [float((small - other).abs().mean()) for other in near]
    return apart[first - low] <= min(apart) + 0.25  # still pictures are all alike


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return math.nan
    return 10 * math.log10(255**2 / max(float(((a.astype(float) - b) ** 2).mean()), 1e-9))


def measure(path: Path, folder: Path, options: argparse.Namespace) -> None:
    side, count = options.short_side, options.frames
    info = open_video(path).metadata
    reference = read_frames(path, 0, info.frames, short_side=side).frames.numpy()
    entries = list(ways(path, folder, side))
    times: dict[str, list[float]] = {name: [] for name, *_ in entries}
    wrong, quality = dict.fromkeys(times, 0), {name: [] for name in times}
    rng = np.random.default_rng(0)
    for turn in range(options.rounds):
        for first in rng.integers(0, max(1, info.frames - count), options.reads).tolist():
            for name, way, _ in entries:
                begin = process_time()
                images = way(first, count)
                times[name].append(process_time() - begin)
                if turn == 0:
                    wrong[name] += len(images) != count or not is_first(images[0], reference, first)
                    quality[name].append(psnr(images[:count], reference[first : first + count]))
    print(f"\n{path.name[-36:]}: {info.width}x{info.height}, {info.frames} frames, {info.duration:.1f} s\n")
    taken = {name: statistics.median(each) for name, each in times.items()}
    rows = []
    for name, _, size in entries:
        decibel = f"{statistics.mean(quality[name]):.1f}" if name.startswith("shards") else ""
        against = [f"{taken.get(base, math.nan) / taken[name]:.1f}" for base in (HDF5, MADE_SMALLER)]
        row = [name, f"{1 / taken[name]:.0f}", *against, f"{size / 1000 / info.duration:.0f}", decibel]
        rows.append([*row, f"{wrong[name]}/{options.reads}"])
    table(["way", "clips/s", "against HDF5", "made as small", "kB per second", "PSNR dB", "wrong"], rows)
    if info.audio:
        location, _ = pack(path, folder, "jpeg", 85, side)
        sound = [heard(where, options.reads) for where in (path, location)]
        print(f"ten seconds of sound: file {sound[0]:.1f} ms, shards {sound[1]:.1f} ms")


def heard(where: Path | Packed, reads: int) -> float:
    def read() -> float:
        begin = process_time()
        read_audio(where, centre=3, seconds=10, rate=32_000)
        return process_time() - begin

    return 1000 * statistics.median(read() for _ in range(reads))


def main() -> None:
    positional = ("videos", {"nargs": "+", "type": Path})
    options = arguments(__doc__, positional, frames=16, short_side=128, reads=15, rounds=3)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for path in [*options.videos, as_720p(options.videos[0], Path(folder))]:
            measure(path, Path(folder), options)


if __name__ == "__main__":
    main()
