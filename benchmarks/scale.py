"""Training on millions of videos, simulated: the list, the order of an epoch, reading from an object store.

    python benchmarks/scale.py list [--rows 100000000] [--ranks 8]
    python benchmarks/scale.py table [--rows 1000000]
    python benchmarks/scale.py store [--data DATA] [--steps 4] [--ranks 8]

`list` writes and maps a made-up list of real size, of which a tenth of the rows, spread over all, are the
test split. Then the ranks start at once, each a process that opens the list, reads random rows of the
training split, and makes the order of its epoch. Memory is what only this process uses. `table` reads a
table of videos as `--data csv:TABLE` does: checked, files looked up (none is there), hashed, written and
mapped. `store` packs a few videos and uploads the shards to an S3 server on this machine
(`pip install 'moto[server]' s3fs`). The ranks read batches of clips from it, as training does, and the server
counts the requests. Requests and bytes per clip hold for any store; seconds do not.
"""

from __future__ import annotations

import multiprocessing
import os
import re
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

import numpy as np
import psutil
import pyarrow as pa
from measuring import arguments, figure, heading, median, megabytes, peak_memory, seconds, table, unit

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.dataset import TrainingClips
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.manifest import Manifest, Videos
from ccl_cli.data.manifest.columns import Columns, Texts
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.index import VIDEOS
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data

BATCH = 64  # of one rank
CLASSES, READS = 1000, 1000
ADDRESS = "http://127.0.0.1:5155"


def together(work: Callable[..., dict[str, float]], ranks: int, *given: Any) -> list[dict[str, float]]:
    """What each rank measures of itself, in processes that start at once."""
    with multiprocessing.get_context("spawn").Pool(ranks) as pool:
        return pool.starmap(work, [(rank, ranks, *given) for rank in range(ranks)], chunksize=1)


def own_memory() -> int:
    """Bytes that only this process uses."""
    return int(psutil.Process().memory_full_info().uss)


# ---- the list


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


def begin_epoch(rank: int, ranks: int, path: Path) -> dict[str, float]:
    """Open the list, read rows, order the epoch."""
    clocks, before = [time.perf_counter()], own_memory()

    def memory() -> int:
        clocks.append(time.perf_counter())
        return own_memory() - before

    manifest = Manifest.load(path)
    train = manifest.split("train")
    train = train.without(manifest.missing("train"))
    if not train.labelled.all() or train.packed or not manifest.hash:
        raise SystemExit("another list")
    memory()
    for row in np.random.default_rng(rank).integers(len(train), size=READS):
        train[row]
    of_worker = memory()
    next(iter(EpochSampler(len(train), BATCH * ranks, 1, rank=rank, processes=ranks)))
    of_rank = memory()
    opened, read, ordered = np.diff(clocks)
    return {"open": opened, "row": read / READS, "order": ordered, "worker": of_worker, "rank": of_rank}


def simulate_list(rows: int, ranks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.arrow"
        write = seconds(lambda: made_up(rows).save(path))
        size = path.stat().st_size
        measured = together(begin_epoch, ranks, path)
    of = {name: median(each[name] for each in measured) for name in measured[0]}
    lines = [
        ["file, MB", megabytes(size)],
        ["bytes per row", figure(size / rows)],
        ["make up, check, hash and write, s", figure(write)],
        ["open, and the rows of the training split, s", figure(of["open"])],
        ["a random row, millionths of s", figure(1e6 * of["row"])],
        ["own memory of a worker, which has read rows, MB", megabytes(of["worker"])],
        ["order of an epoch, s", figure(of["order"])],
        ["own memory of a rank, which has its order too, MB", megabytes(of["rank"])],
        ["peak memory of this process while writing, MB", megabytes(peak_memory())],
    ]
    table([f"{rows:,} rows, {ranks} ranks at once", ""], lines)


def from_table(rows: int, folder: Path) -> None:
    os.environ["CCL_HOME"] = str(folder)
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


# ---- the object store


@contextmanager
def s3(log: Path) -> Iterator[str]:
    """An S3 server on this machine; it writes a line for each request to ``log``."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", ADDRESS.rpartition(":")[2]]
    os.environ |= {
        "AWS_ENDPOINT_URL": ADDRESS,
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
                    urllib.request.urlopen(f"{ADDRESS}/moto-api/", timeout=5).close()
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
    part = ("part", {"choices": ["list", "table", "store"]})
    data = "clips?per_class=4&size=132&seconds=10"
    options = arguments(__doc__, part, rows=0, data=data, steps=4, ranks=8)
    if options.part == "list":
        heading("The list of videos", "pyarrow", "numpy")
        simulate_list(options.rows or 100_000_000, options.ranks)
    elif options.part == "table":
        heading("A table of videos", "pyarrow", "numpy")
        with tempfile.TemporaryDirectory() as folder:
            from_table(options.rows or 1_000_000, Path(folder))
    else:
        heading("Clips from an object store", "s3fs", "moto", "av")
        simulate_store(options.data, options.steps, options.ranks)


if __name__ == "__main__":
    main()
