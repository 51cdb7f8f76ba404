"""Clips per second: reading a window of frames, against decoding the file from its start to its end.

    python benchmarks/decode.py VIDEO... [--frames 16] [--short-side 128] [--reads 20]

Both are timed in turns on one core, file by file; a ratio says more than a time. The sequential decode
converts only the frames of the window. The first read of a file also indexes it: shown on its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ccl_cli.data import decode, media
from ccl_cli.data.decode import index_video, read_frames
from ccl_cli.data.transforms import train_view
from ccl_cli.recipe import Clip


def sequential(path: Path, first: int, count: int, short_side: int) -> np.ndarray:
    to_image = decode._ToImage(short_side)
    with media.opened(path) as container:
        video = media.best_stream(container, "video")
        frames = media.decoded(video, media.packets_of(container, video))
        images = [to_image(frame) for frame in islice(frames, first, first + count)]
        for _ in frames:
            pass
    return np.stack(images)


def timed(work: Callable[..., object], *args: object) -> float:
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def row(path: Path, options: argparse.Namespace) -> tuple[float, ...]:
    media._index.cache_clear()
    indexing = timed(index_video, path)
    rng = np.random.default_rng(0)
    last = max(1, index_video(path).frames - options.frames)
    read = partial(read_frames, count=options.frames, short_side=options.short_side)
    ours, naive, views = [], [], []
    for first in map(int, rng.integers(last, size=options.reads)):
        ours.append(timed(read, path, first))
        naive.append(timed(sequential, path, first, options.frames, options.short_side))
        views.append(timed(train_view, read(path, first).frames, rng, Clip()))
    return indexing, *map(statistics.median, (ours, naive, views))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--short-side", type=int, default=128)
    parser.add_argument("--reads", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'video':40} {'clips/s':>8} {'sequential':>11} {'ratio':>6} {'index ms':>9} {'view ms':>8}")
    for path in options.videos:
        indexing, ours, naive, view = row(path, options)
        print(
            f"{path.name[-40:]:40} {1 / ours:8.1f} {1 / naive:11.1f} {naive / ours:6.2f} "
            f"{1000 * indexing:9.1f} {1000 * view:8.1f}"
        )


if __name__ == "__main__":
    main()
