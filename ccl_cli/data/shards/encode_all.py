"""Encoding of a data set's videos for shards: in several processes, or in blocks by an executor."""

from __future__ import annotations

import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from torch.utils.data import Dataset

from ccl_cli.config.recipe import Executor
from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.manifest import SPLITS, Manifest, Video
from ccl_cli.data.shards.encode import Encoded, Settings, Source, encode
from ccl_cli.data.shards.index import keys_for, write_shard
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError
from ccl_cli.executors.blocks import DONE, block_size, run_blocks
from ccl_cli.executors.part import Part
from ccl_cli.executors.work import Work
from ccl_cli.utils.processes import cores
from ccl_cli.utils.progress import Reporter

_TIMEOUT = 3600.0  # seconds for one video
_REASON = "unreadable"  # in a block, the only member of an unreadable video


def encode_all(sources: Sequence[Source], settings: Settings, workers: int | None) -> Iterator[Encoded | str]:
    """Encode sources in their order; yield a sample, or the reason why a video cannot be read.

    Args:
        sources: Sources to encode.
        settings: Encoding options.
        workers: Number of processes; 0: encode in this process; None: one per core.
    """
    return read_batches(
        _Sources(sources, settings),
        cores() if workers is None else workers,
        modules=[__name__],
        advice="run the same command again to continue",
        patience=_TIMEOUT,
        prefetch=2,  # only a few, because encoded long videos are large
    )


class _Sources(Dataset[Encoded | str]):
    """Encodes a source when it is read. A video that cannot be packed becomes the reason."""

    def __init__(self, sources: Sequence[Source], settings: Settings) -> None:
        self.sources, self.settings = sources, settings

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Encoded | str:
        try:
            return encode(self.sources[index], self.settings)
        except DataError as error:
            return error.message


def encode_blocks(
    data: str,
    manifest: Manifest,
    todo: Sequence[Source],
    folder: Path,
    settings: Settings,
    workers: int | None,
    executor: Executor,
    part: Part,
) -> Iterator[Encoded | str]:
    """Run :func:`encode_all` by an executor, on blocks of all sources of a data set, each one tar file.

    Raises:
        CclError: some blocks failed; the others are kept.
        PartDone: blocks of other parts are not done yet.
    """
    sources, keys = sources_of(manifest), {source.key for source in todo}
    size = block_size(len(sources))
    shared = {"data": data, "videos": manifest.hash, "settings": asdict(settings), "workers": workers}
    items, sizes, wanted = dict[str, dict[str, Any]](), dict[str, int](), []
    for first in range(0, len(sources), size):
        name, block = f"{first // size:06}", sources[first : first + size]
        if needed := [source for source in block if source.key in keys]:
            file = folder / f"{name}.tar"
            items[name] = {**shared, "first": first, "size": size, "file": str(file)}
            sizes[name] = len(needed)
            wanted.append((file, block))
    work = Work("pack", folder, f"{__name__}:encode_block", DONE, items)
    with Reporter("encode", len(todo), unit="video") as reporter:
        # One block at a time on each machine, because a block uses all cores.
        run_blocks(work, executor.model_copy(update={"jobs": 1}), reporter.advance, sizes, part)
    return (
        result for file, block in wanted for source, result in _read_block(file, block) if source.key in keys
    )


def encode_block(item: Mapping[str, Any]) -> None:
    """Encode one block. Raises a DataError if the data set has changed."""
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


def _read_block(path: Path, sources: Sequence[Source]) -> Iterator[tuple[Source, Encoded | str]]:
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


def sources_of(manifest: Manifest) -> list[Source]:
    """One source for each split and video, each split shuffled so that a shard contains all classes."""
    grouped: dict[tuple[str, str], list[Video]] = defaultdict(list)
    for video in manifest.videos:
        grouped[video.split, str(video.path)].append(video)
    keys = keys_for(videos[0].id for videos in grouped.values())
    sources = []
    for split in SPLITS:
        groups = [videos for (name, _), videos in grouped.items() if name == split]
        for place in np.random.default_rng(0).permutation(len(groups)):
            sources.append(_source(keys[groups[place][0].id], groups[place], manifest.classes))
    return sources


def _source(key: str, videos: Sequence[Video], classes: Sequence[str]) -> Source:
    starts, ends = [video.start for video in videos], [video.end for video in videos]
    return Source(
        key,
        videos[0].path,
        videos[0].split,
        tuple(_row(video, classes) for video in videos),
        None if None in starts else min(start for start in starts if start is not None),
        None if None in ends else max(end for end in ends if end is not None),
    )


def _row(video: Video, classes: Sequence[str]) -> dict[str, Any]:
    name = None if video.label is None else classes[video.label]
    row: dict[str, Any] = {"id": video.id, "class": name, "label": video.label}
    return row | {key: at for key, at in (("start", video.start), ("end", video.end)) if at is not None}
