"""Pack a data set into shards, in several processes; an interruption costs the unfinished shard only."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.manifest import SPLITS, Manifest, Video, check_unreadable
from ccl_cli.data.shards.encode import Encoded, Settings, Source, encode
from ccl_cli.data.shards.index import (
    INDEX_FORMAT,
    Sample,
    keys_for,
    read_shard,
    shard_names,
    write_index,
    write_shard,
)
from ccl_cli.data.sources import load_data
from ccl_cli.data.video.faults import blaming_video
from ccl_cli.data.video.video_writer import claim_folder
from ccl_cli.errors import DataError, SystemSetupError
from ccl_cli.utils.files import lock_file, remove_leftovers
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.signals import stopping_here

_TIMEOUT = 3600.0  # seconds for one video


def pack(
    data: str,
    output: Path,
    settings: Settings,
    *,
    workers: int,
    shard_size: int,
    max_unreadable: float,
) -> dict[str, Any]:
    """Pack a data set, or finish what was interrupted.

    The same videos and settings give the same bytes, whatever the number of processes. Finished shards are
    kept, and an unfinished one is never visible.

    Args:
        data: The data set, as after ``--data``.
        output: Folder of the shards; empty, absent, or begun with the same set and settings.
        settings: How to re-encode.
        workers: Processes; 0: this one.
        shard_size: Bytes at which a shard is closed.
        max_unreadable: Share of a split that may be missing or unreadable.

    Returns:
        Counts and sizes by split, and the videos that could not be read.

    Raises:
        DataError: too many videos cannot be read, or the folder holds something else.
        SystemSetupError: the disk refuses.
        Interrupted: stopped by a signal; the finished shards are kept.
    """
    manifest = load_data(data, need=())
    options = {**asdict(settings), "shard_size": shard_size}
    try:
        with (
            lock_file(output / ".lock", f"Another process packs into '{output}'.", "Wait for it to end."),
            stopping_here("; finished shards are kept.", "Run the same command again to go on."),
        ):
            remove_leftovers(output)
            claim_folder(
                output, json.dumps({"format": INDEX_FORMAT, "videos": manifest.hash, **options}), "shards"
            )
            work = _Packing(manifest, output, shard_size, max_unreadable)
            work.run(settings, workers)
            write_index(output, manifest, options, work.shards, work.unreadable)
    except OSError as error:
        raise SystemSetupError(
            f"Cannot write shards to '{output}': {error.strerror or error}.",
            "Finished shards are kept: make room, or name another folder, and run the command again.",
        ) from error
    return work.report()


class _Packing:
    """The state of one folder: its finished shards, and the videos that cannot be read."""

    def __init__(self, manifest: Manifest, output: Path, shard_size: int, limit: float) -> None:
        self.manifest, self.output, self.shard_size, self.limit = manifest, output, shard_size, limit
        self.sources = _sources(manifest)
        self.unreadable: dict[str, str] = {}
        self.failed: dict[str, list[Video]] = {split: [] for split in SPLITS}
        self.shards: dict[str, list[Sample]] = {
            path.name: read_shard(path) for split in SPLITS for path in sorted(output.glob(f"{split}-*.tar"))
        }

    def run(self, settings: Settings, workers: int) -> None:
        """Make the shards that are not there yet."""
        done = {sample.key for samples in self.shards.values() for sample in samples}
        todo = [source for source in self.sources if source.key not in done]
        with Reporter("pack", len(self.sources), len(self.sources) - len(todo), unit="video") as reporter:
            encoded = self._encoded(todo, settings, workers, reporter)
            for split, samples in groupby(encoded, key=lambda sample: sample.split):
                self._write(split, samples)
            reporter.line()
        in_order = sorted(self.shards, key=lambda name: (SPLITS.index(name.partition("-")[0]), name))
        self.shards = {name: self.shards[name] for name in in_order}

    def _write(self, split: str, samples: Iterator[Encoded]) -> None:
        free = (name for name in shard_names(split) if name not in self.shards)
        for first, name in zip(samples, free, strict=False):
            path = self.output / name
            write_shard(path, chain([first], samples), self.shard_size)
            self.shards[name] = read_shard(path)

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

    def _encoded(
        self, todo: Sequence[Source], settings: Settings, workers: int, reporter: Reporter
    ) -> Iterator[Encoded]:
        """The readable sources, encoded, in their order."""
        encoded = read_batches(
            _Sources(todo, settings),
            workers,
            batch_size=None,
            modules=[__name__],
            advice="run the same command again to go on",
            patience=_TIMEOUT,
            prefetch=2,  # long videos are large: few wait to be written
        )
        size = 0
        for source, sample in zip(todo, encoded, strict=True):
            if isinstance(sample, Encoded):
                size += sum(map(len, sample.members.values()))
                yield sample
            else:
                self._leave_out(source, sample)
            reporter.advance(text=f"{size / 1e6:.0f} MB")

    def _leave_out(self, source: Source, reason: str) -> None:
        self.unreadable |= {row["id"]: reason for row in source.rows}
        failed = self.failed[source.split]
        failed += [Video(row["id"], source.path, row["label"], source.split) for row in source.rows]
        try:
            check_unreadable(len(failed), self.manifest, source.split, self.limit, failed)
        except DataError as too_many:
            advice = "Fix them, or raise the limit with --max-unreadable; they will count as missing."
            raise DataError(f"{too_many.message} The last: {reason}", advice) from too_many


class _Sources(Dataset[Encoded | str]):
    """Encodes in the workers. A video that cannot be packed gives a reason, so that the others still are."""

    def __init__(self, sources: Sequence[Source], settings: Settings) -> None:
        self.sources, self.settings = sources, settings

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Encoded | str:
        source = self.sources[index]
        try:
            with blaming_video(source.path):
                return encode(source, self.settings)
        except DataError as error:
            return error.message


def _sources(manifest: Manifest) -> list[Source]:
    """One for each video and split, split by split, shuffled: a reader of one shard sees all classes."""
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
