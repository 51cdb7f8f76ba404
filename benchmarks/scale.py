"""Training on a hundred million videos, simulated: list, order of an epoch, reading from an object store.

    python benchmarks/scale.py list [--rows 100000000] [--ranks 8]
    python benchmarks/scale.py store [--data DATA] [--steps 4] [--ranks 8]

`list` writes and maps a list of real size. Then the ranks start at once, each a process that opens the
list, makes the order of its epoch and reads the rows of its first batches. `store` packs a few videos and
uploads the shards to an S3 server on this machine (`pip install 'moto[server]' s3fs`). The ranks read
batches of clips from it, as training does, and the server counts the requests. Requests and bytes per clip
hold for any store; seconds do not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import psutil
from manifest import made_up
from measuring import figure, heading, median, megabytes, table

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.dataset import TrainingClips
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.manifest import Manifest
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.index import VIDEOS
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data

BATCH = 64  # of one rank
ADDRESS = "http://127.0.0.1:{}"


def together(work: Callable[..., dict[str, float]], ranks: int, *arguments: Any) -> list[dict[str, float]]:
    """What each rank measures of itself, in processes that start at once."""
    with multiprocessing.get_context("spawn").Pool(ranks) as pool:
        return pool.starmap(work, [(rank, ranks, *arguments) for rank in range(ranks)], chunksize=1)


def own_memory() -> int:
    """Bytes that only this process uses."""
    return int(psutil.Process().memory_full_info().uss)


# ---- the list


def begin_epoch(rank: int, ranks: int, path: Path) -> dict[str, float]:
    """Open the list, order the epoch, read the rows of ten batches."""
    before, begin = own_memory(), time.perf_counter()
    manifest = Manifest.load(path)
    train = manifest.split("train")
    opened = time.perf_counter()
    batches = iter(EpochSampler(len(train), BATCH * ranks, 1, rank=rank, processes=ranks))
    first = next(batches)
    ordered = time.perf_counter()
    rows = [draw.row for batch in [first, *islice(batches, 9)] for draw in batch]
    read = time.perf_counter()
    for row in rows:
        train[row]
    return {
        "open": opened - begin,
        "order": ordered - opened,
        "row": (time.perf_counter() - read) / len(rows),
        "memory": own_memory() - before,
    }


def simulate_list(rows: int, ranks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.arrow"
        begin = time.perf_counter()
        made_up(rows).save(path)
        write, size = time.perf_counter() - begin, path.stat().st_size
        measured = together(begin_epoch, ranks, path)

    def of(name: str) -> float:
        return median([each[name] for each in measured])

    lines = [
        ["file, MB", megabytes(size)],
        ["bytes per row", figure(size / rows)],
        ["make up, check, hash and write, s", figure(write)],
        ["open, and the rows of the training split, s", figure(of("open"))],
        ["order of an epoch, s", figure(of("order"))],
        ["a random row, millionths of s", figure(1e6 * of("row"))],
        ["own memory of a rank, MB", megabytes(of("memory"))],
        [
            "peak memory of this process while writing, MB",
            megabytes(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
        ],
    ]
    table([f"{rows:,} rows, {ranks} ranks at once", ""], lines)


# ---- the object store


@contextmanager
def s3(log: Path, port: int = 5155) -> Iterator[str]:
    """An S3 server on this machine; it writes a line for each request to ``log``."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    os.environ |= {
        "AWS_ENDPOINT_URL": ADDRESS.format(port),
        "AWS_ACCESS_KEY_ID": "simulated",
        "AWS_SECRET_ACCESS_KEY": "simulated",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with log.open("w") as file:
        server = subprocess.Popen(command, stderr=file, stdout=file)
        try:
            for _ in range(100):
                if server.poll() is not None:
                    raise SystemExit(f"The server does not start:\n{log.read_text()}")
                try:
                    urllib.request.urlopen(f"{ADDRESS.format(port)}/moto-api/", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield "s3://packed"
        finally:
            server.terminate()
            server.wait()


def requests(log: Path, kind: str) -> int:
    """How many requests of this kind the server has answered."""
    return len(re.findall(rf'"{kind} /packed/\S*\.(?:tar|arrow|json)', log.read_text()))


def read_clips(rank: int, ranks: int, address: str, steps: int) -> dict[str, float]:
    """Read the clips of some batches, as a worker of training reads them."""
    from ccl_cli.data.video import reader, storage

    counted = {"bytes": 0.0, "clips": 0.0}
    read_range = storage.read_range

    def counting(address: str, offset: int, size: int) -> bytes:
        counted["bytes"] += size
        return read_range(address, offset, size)

    train = load_data(f"shards:{address}").split("train")
    storage.read_range = counting
    clips = TrainingClips(train, Clip(), {}, seed=0)
    sampler = EpochSampler(len(train), BATCH * ranks, 1000, rank=rank, processes=ranks)
    begin = time.perf_counter()
    for draw in chain.from_iterable(islice(sampler, steps)):
        clips[[draw]]
        # Of so many videos none is read twice while a reader of it is open.
        reader._readers = reader._ReaderCache()
        counted["clips"] += 1
    return {**counted, "seconds": time.perf_counter() - begin, "memory": own_memory()}


def simulate_store(data: str, steps: int, ranks: int) -> None:
    import s3fs

    with tempfile.TemporaryDirectory() as root:
        folder, log = Path(root) / "packed", Path(root) / "requests.log"
        settings = Settings(short_side=128, format="mp4", quality=20)
        pack(data, folder, settings, workers=None, shard_size=10**8, max_unreadable=0)
        count, listed = len(Manifest.load(folder / VIDEOS).videos), (folder / VIDEOS).stat().st_size
        with s3(log) as address:
            store = s3fs.S3FileSystem()
            store.mkdir(address)
            store.put(f"{folder}/*", address)
            begun = requests(log, "GET")
            load_data(f"shards:{address}")
            loaded = requests(log, "GET")
            measured = together(read_clips, ranks, address, steps)
            answered = requests(log, "GET") - loaded - ranks * (loaded - begun)
    clips = sum(each["clips"] for each in measured)
    lines = [
        ["videos", count],
        ["bytes of the list per video", figure(listed / count)],
        ["clips read", f"{clips:,.0f}"],
        ["requests per clip", figure(answered / clips)],
        ["kB per clip", figure(sum(each["bytes"] for each in measured) / clips / 1000)],
        ["memory of a rank's reader, MB", megabytes(median([each["memory"] for each in measured]))],
    ]
    table([f"{ranks} ranks, batches of {BATCH}", ""], lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["list", "store"])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--data", default="clips?per_class=4&size=132&seconds=10")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=8)
    options = parser.parse_args()
    if options.part == "list":
        heading("The list of a hundred million videos", "pyarrow", "numpy")
        simulate_list(options.rows, options.ranks)
    else:
        heading("Clips from an object store", "s3fs", "moto", "av")
        simulate_store(options.data, options.steps, options.ranks)


if __name__ == "__main__":
    main()
