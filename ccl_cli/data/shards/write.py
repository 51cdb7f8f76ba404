"""Packing of a data set into shards. An interruption loses only the unfinished shard."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import chain, count, groupby
from pathlib import Path
from typing import Any

from ccl_cli.config.recipe import Executor
from ccl_cli.data.manifest import SPLITS, Manifest, check_unreadable
from ccl_cli.data.shards.encode import Encoded, Settings, Source
from ccl_cli.data.shards.encode_all import encode_all, encode_blocks, sources_of
from ccl_cli.data.shards.index import INDEX_FORMAT, Sample, read_shard, write_index, write_shard
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError
from ccl_cli.executors.part import WHOLE, Part
from ccl_cli.utils.files import claim_folder, lock_file, remove_leftovers
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.signals import stopping_here

_BLOCKS = ".blocks"  # folder of an executor's encoded videos, until the shards are finished


def pack(
    data: str,
    output: Path,
    settings: Settings,
    *,
    workers: int | None,
    shard_size: int,
    max_unreadable: float,
    executor: Executor | None = None,
    part: Part = WHOLE,
) -> dict[str, Any]:
    """Pack a data set, or continue after an interruption.

    The same videos and settings give the same bytes, with any number of processes and any executor. Finished
    shards are kept, and an unfinished shard is never visible.

    Args:
        data: Data set, in the form of ``--data``.
        output: Folder of the shards: new, empty, or of an interrupted call with the same set and settings.
        settings: Encoding options.
        workers: Number of processes; 0: encode in this process; None: one per core.
        shard_size: Size at which a shard is closed, bytes.
        max_unreadable: Largest share of a split that may be missing or unreadable.
        executor: Executor for encoding; None: this machine. The shards are always written by this process.
        part: Part of the videos for the executor to encode. The part that finishes last writes the shards.

    Returns:
        Counts and sizes by split, and the videos that could not be read.

    Raises:
        DataError: too many videos cannot be read, or the folder contains other files.
        CclError: the executor could not encode some blocks; the others are kept.
        PartDone: other parts are not encoded yet.
        OSError: a file cannot be written; finished shards are kept.
        Interrupted: stopped by a signal; finished shards are kept.
    """
    manifest = load_data(data, need=())

    def encode(todo: Sequence[Source]) -> Iterator[Encoded | str]:
        if executor is None:
            return encode_all(todo, settings, workers)
        return encode_blocks(data, manifest, todo, output / _BLOCKS, settings, workers, executor, part)

    options = {**asdict(settings), "shard_size": shard_size}
    opened = partial(_opened, manifest, output, options, max_unreadable, wait=part != WHOLE)
    if part != WHOLE:
        with opened() as work:
            todo = work.todo
        encode(todo)  # without the lock, so that all parts can do so at once
    stopped = "; finished shards are kept.", "Run the same command again to continue."
    with opened() as work, stopping_here(*stopped):
        remove_leftovers(output)
        work.run(encode)
        write_index(output, manifest, options, work.shards, work.unreadable)
        shutil.rmtree(output / _BLOCKS, ignore_errors=True)
    return work.report()


@contextmanager
def _opened(
    manifest: Manifest, output: Path, options: Mapping[str, Any], limit: float, *, wait: bool
) -> Iterator[_Packing]:
    """Lock the folder, and check that it is new or was begun with the same videos and options."""
    refusal = f"Another process packs into '{output}'."
    content = json.dumps({"format": INDEX_FORMAT, "videos": manifest.hash, **options})
    with lock_file(output / ".lock", refusal, "Wait for it to end.", wait=wait):
        claim_folder(output, content, "shards")
        yield _Packing(manifest, output, options["shard_size"], limit)


class _Packing:
    """Packing into one folder: its finished shards, and the videos that cannot be read."""

    def __init__(self, manifest: Manifest, output: Path, shard_size: int, limit: float) -> None:
        self.manifest, self.output, self.shard_size, self.limit = manifest, output, shard_size, limit
        self.sources = sources_of(manifest)
        self.unreadable: dict[str, str] = {}
        self.shards: dict[str, list[Sample]] = {
            path.name: read_shard(path) for split in SPLITS for path in sorted(output.glob(f"{split}-*.tar"))
        }

    @property
    def todo(self) -> list[Source]:
        """Sources that are in no finished shard."""
        done = {sample.key for samples in self.shards.values() for sample in samples}
        return [source for source in self.sources if source.key not in done]

    def run(self, encode: Callable[[Sequence[Source]], Iterator[Encoded | str]]) -> None:
        """Write the missing shards."""
        todo = self.todo
        results = zip(todo, encode(todo), strict=True)
        with Reporter("pack", len(self.sources), len(self.sources) - len(todo), unit="video") as reporter:
            readable = self._readable(results, reporter.advance)
            for split, samples in groupby(readable, key=lambda sample: sample.split):
                self._write(split, samples)
            reporter.line()
        in_order = sorted(self.shards, key=lambda name: (SPLITS.index(name.partition("-")[0]), name))
        self.shards = {name: self.shards[name] for name in in_order}

    def _write(self, split: str, samples: Iterator[Encoded]) -> None:
        names = (f"{split}-{number:06}.tar" for number in count())
        free = (name for name in names if name not in self.shards)
        for first, name in zip(samples, free, strict=False):
            write_shard(self.output / name, chain([first], samples), self.shard_size)
            self.shards[name] = read_shard(self.output / name)

    def report(self) -> dict[str, Any]:
        """Counts and sizes by split, and the videos that could not be read."""
        return {
            "folder": str(self.output),
            "splits": {name: self._split_report(name) for name in SPLITS if self.manifest.split(name)},
            "unreadable": self.unreadable,
        }

    def _split_report(self, split: str) -> dict[str, Any]:
        shards = {name: samples for name, samples in self.shards.items() if name.startswith(f"{split}-")}
        samples = list(chain.from_iterable(shards.values()))
        return {
            "videos": len(self.manifest.split(split)),
            "packed": sum(len(sample.rows) for sample in samples),
            "shards": len(shards),
            "bytes": sum((self.output / name).stat().st_size for name in shards),
            "seconds": round(sum(sample.seconds for sample in samples), 3),
            "sound": dict(Counter(sample.sound for sample in samples)),
        }

    def _readable(
        self, results: Iterable[tuple[Source, Encoded | str]], advance: Callable[..., None]
    ) -> Iterator[Encoded]:
        """Yield the samples of readable sources, in their order.

        Raises:
            DataError: too many videos of a split cannot be read.
        """
        size, failed = 0, Counter[str]()
        for source, result in results:
            if isinstance(result, Encoded):
                size += sum(map(len, result.members.values()))
                yield result
            else:
                self.unreadable |= {row["id"]: result for row in source.rows}
                failed[source.split] += len(source.rows)
                try:
                    check_unreadable(failed[source.split], self.manifest, source.split, self.limit)
                except DataError as too_many:
                    advice = "Fix them, or raise the limit with --max-unreadable; they will count as missing."
                    raise DataError(f"{too_many.message} The last: {result}", advice) from too_many
            advance(text=f"{size / 1e6:.0f} MB")
