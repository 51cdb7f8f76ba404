"""A manifest of ten million videos: write, open, a row, a split, and the memory of each worker.

    python benchmarks/manifest.py [--rows 10000000] [--table 1000000] [--workers 4]

The list is made up: a tenth of the rows, spread over all, are the test split, so that row numbers must reach
the workers. Workers are those of training. Each reads all labels and then random rows of the training split;
its memory is the USS, which only this process uses, less that of a worker without a list. The table of videos
is read as by `--data csv:TABLE`: checked, files looked up (none is there), hashed, written and mapped.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
from measuring import add_clock, clock, figure, heading, median, megabytes, table, unit
from torch.utils.data import Dataset

from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.manifest import Manifest, Videos
from ccl_cli.data.manifest.columns import Columns, Texts
from ccl_cli.data.sources import load_data

CLASSES, READS = 1000, 20_000


def numbered(template: str, rows: int) -> Texts:
    """The template with each row's number in place of its nines."""
    letters = np.tile(np.frombuffer(template.encode(), np.uint8), (rows, 1))
    numbers = np.arange(rows)
    for power, place in enumerate(reversed([at for at, letter in enumerate(template) if letter == "9"])):
        letters[:, place] = ord("0") + numbers // 10**power % 10
    offsets = np.arange(rows + 1, dtype=np.int64) * len(template)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(letters)]
    return Texts(pa.Array.from_buffers(pa.large_string(), rows, buffers))


def made_up(rows: int) -> Manifest:
    numbers, nowhere = np.arange(rows), np.full(rows, np.nan)
    columns = Columns(
        numbered("collection/video_999999999", rows),
        numbered("/videos/of/somebody/collection/video_999999999.mp4", rows),
        (numbers % CLASSES).astype(np.int32),
        np.where(numbers % 10 == 7, 2, 0).astype(np.int8),
        nowhere,
        nowhere,
        10**6 + numbers,
    )
    return Manifest("made-up", [f"class {number}" for number in range(CLASSES)], Videos(columns))


class Reading(Dataset[dict[str, float]]):
    """What a worker does with its list."""

    def __init__(self, videos: Videos | None) -> None:
        self.videos = videos

    def __getitem__(self, seed: int) -> dict[str, float]:
        videos, seconds = self.videos, 0.0
        if videos is not None:
            int(videos.column("label").sum())
            begin = clock()
            for row in np.random.default_rng(seed).integers(len(videos), size=READS):
                videos[row]
            seconds = clock() - begin
        memory = psutil.Process().memory_full_info()
        return {"seconds": seconds, "uss": memory.uss, "rss": memory.rss, "process": os.getpid()}

    def __len__(self) -> int:
        return 10**6


def in_workers(videos: Videos | None, workers: int) -> list[dict[str, float]]:
    """Of each worker, once all have read."""
    batches = read_batches(Reading(videos), workers, sampler=range(2 * workers), prefetch=1)
    by_process = {each["process"]: each for each in batches}  # of two turns the second
    return list(by_process.values())


def seconds(work: Callable[[], Any], rounds: int = 1) -> float:
    times = []
    for _ in range(rounds):
        begin = clock()
        work()
        times.append(clock() - begin)
    return median(times)


def before_a_step(path: Path) -> None:
    """What training does with a list before its first step; it also writes it into the folder of the run."""
    manifest = Manifest.load(path)
    videos = manifest.split("train")
    videos = videos.without(manifest.missing("train"))
    if not videos.labelled.all() or videos.packed or not manifest.hash:
        raise SystemExit("another list")
    torch.tensor(videos.column("label"), dtype=torch.int64)
    next(iter(EpochSampler(len(videos), 64, epochs=1)))


def mapped(rows: int, workers: int, folder: Path) -> None:
    path = folder / "m.arrow"
    write = seconds(partial(made_up(rows).save, path))
    opened = seconds(lambda: Manifest.load(path), 11)
    manifest = Manifest.load(path)
    split = seconds(lambda: manifest.split("train"))
    begun = seconds(lambda: before_a_step(path), 3)
    train = manifest.split("train")
    places = np.random.default_rng(0).integers(len(train), size=READS)
    row = seconds(lambda: [train[place] for place in places])
    alone, with_list = in_workers(None, workers), in_workers(train, workers)
    base = max(each["uss"] for each in alone)
    lines = [
        ["file, MB", megabytes(path.stat().st_size)],
        [f"check, hash and write, {unit()}", figure(write)],
        [f"open, thousandths of {unit()}", figure(1000 * opened)],
        [f"rows of the training split, thousandths of {unit()}", figure(1000 * split)],
        [f"all before the first step, thousandths of {unit()}", figure(1000 * begun)],
        [f"a random row, millionths of {unit()}", figure(1e6 * row / READS)],
        ["the same in a worker", figure(1e6 * median([each["seconds"] for each in with_list]) / READS)],
        ["own memory of a worker, MB", megabytes(max(each["uss"] for each in with_list) - base)],
        ["of a worker without a list, MB", megabytes(base)],
        ["RSS of a worker, mapped pages included, MB", megabytes(max(each["rss"] for each in with_list))],
    ]
    table([f"{rows:,} rows, {workers} workers", ""], lines)


def from_table(rows: int, folder: Path) -> None:
    path = folder / "videos.csv"
    with path.open("w") as file:
        file.write("path,label,split\n")
        names = (f"collection/video_{row:09}.mp4,class {row % CLASSES}" for row in range(rows))
        file.writelines(f"{name},{'train' if row % 10 else 'test'}\n" for row, name in enumerate(names))
    read = seconds(lambda: load_data(f"csv:{path}"))
    manifest = load_data(f"csv:{path}")
    write = seconds(lambda: manifest.save(folder / "m.jsonl"))
    again = seconds(lambda: load_data(f"manifest:{folder / 'm.jsonl'}"))
    lines = [["read a CSV table", figure(read)], ["write JSON lines", figure(write)]]
    table([f"{rows:,} rows", unit()], [*lines, ["read JSON lines", figure(again)]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--table", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=4)
    add_clock(parser)
    options = parser.parse_args()
    heading("Manifest", "pyarrow", "numpy", "torch")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CCL_HOME"] = folder
        mapped(options.rows, options.workers, Path(folder))
        from_table(options.table, Path(folder))


if __name__ == "__main__":
    main()
