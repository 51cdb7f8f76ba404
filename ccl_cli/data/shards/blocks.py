"""Encoding of videos for shards by an executor, in blocks of one tar file each."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any, cast

from ccl_cli.config.recipe import Executor
from ccl_cli.data.manifest import Manifest
from ccl_cli.data.shards.encode import Encoded, Settings, Source
from ccl_cli.data.shards.encode_all import encode_all, sources_of
from ccl_cli.data.shards.index import write_shard
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError
from ccl_cli.executors.blocks import DONE, block_size, run_blocks
from ccl_cli.executors.part import WHOLE, Part
from ccl_cli.executors.work import Work
from ccl_cli.utils.progress import Reporter

_REASON = "unreadable"  # the only member of an unreadable video


def encode_blocks(
    data: str,
    manifest: Manifest,
    todo: Sequence[Source],
    folder: Path,
    settings: Settings,
    workers: int | None,
    executor: Executor,
    part: Part = WHOLE,
) -> Iterator[Encoded | str]:
    """Run :func:`ccl_cli.data.shards.encode_all.encode_all` on blocks of the sources of a data set.

    Args:
        data: Data set, in the form of ``--data``.
        manifest: Manifest of the data set.
        todo: Sources to encode, in their order.
        folder: Folder of the blocks; the caller removes it.
        settings: Encoding options.
        workers: Processes on each machine. None: one per core.
        executor: Settings of the executor.
        part: Part of the blocks to encode here.

    Returns:
        An iterator over the results.

    Raises:
        CclError: some blocks failed; the others are kept.
        PartDone: blocks of other parts are not done yet.
    """
    sources, keys = sources_of(manifest), {source.key for source in todo}
    size = block_size(len(sources))
    shared = {"data": data, "videos": manifest.hash, "settings": asdict(settings), "workers": workers}
    blocks = {f"{first // size:06}": sources[first : first + size] for first in range(0, len(sources), size)}
    items: dict[str, dict[str, Any]] = {
        name: {**shared, "first": int(name) * size, "size": size, "file": str(folder / f"{name}.tar")}
        for name, block in blocks.items()
        if any(source.key in keys for source in block)
    }
    work = Work("pack", folder, f"{__name__}:run", DONE, items)
    sizes = {name: sum(source.key in keys for source in blocks[name]) for name in items}
    with Reporter("encode", len(todo), unit="video") as reporter:
        # One block at a time on each machine, because a block uses all cores.
        run_blocks(work, executor.model_copy(update={"jobs": 1}), reporter.advance, sizes, part)
    encoded = (_read(Path(item["file"]), blocks[name]) for name, item in items.items())
    return (result for source, result in chain.from_iterable(encoded) if source.key in keys)


def run(item: Mapping[str, Any]) -> None:
    """Encode one block.

    Raises:
        DataError: the data set has changed.
    """
    manifest = load_data(item["data"], need=())
    if manifest.hash != item["videos"]:
        raise DataError("The data set has changed since packing started.", "Run the same command again.")
    sources = sources_of(manifest)[item["first"] : item["first"] + item["size"]]
    results = encode_all(sources, Settings(**item["settings"]), item["workers"])
    write_shard(Path(item["file"]), map(_as_sample, sources, results), sys.maxsize)


def _as_sample(source: Source, result: Encoded | str) -> Encoded:
    if isinstance(result, Encoded):
        return result
    return Encoded(source.key, source.split, {_REASON: result.encode("utf-8", "surrogatepass")})


def _read(path: Path, sources: Sequence[Source]) -> Iterator[tuple[Source, Encoded | str]]:
    """Yield the sources of a block, each with its sample or the reason why it is unreadable."""
    with tarfile.open(path, "r:") as tar:
        samples = groupby(tar, key=lambda entry: entry.name.rpartition(".")[0])
        for source, (_, entries) in zip(sources, samples, strict=True):
            members = {
                entry.name.rpartition(".")[2]: cast(IO[bytes], tar.extractfile(entry)).read()
                for entry in entries
            }
            if _REASON in members:
                path.unlink(missing_ok=True)  # so that the next run tries the block again
                yield source, members[_REASON].decode("utf-8", "surrogatepass")
            else:
                yield source, Encoded(source.key, source.split, members)
