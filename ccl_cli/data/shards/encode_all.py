"""Encoding of a data set's videos for shards, in several processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ccl_cli.data.clips.loader import read_batches
from ccl_cli.data.manifest import SPLITS, Manifest, Video
from ccl_cli.data.shards.encode import Encoded, Settings, Source, encode
from ccl_cli.data.shards.index import keys_for
from ccl_cli.data.video.faults import blaming_video
from ccl_cli.errors import DataError
from ccl_cli.utils.processes import cores

_TIMEOUT = 3600.0  # seconds for one video


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
        batch_size=None,
        modules=[__name__],
        advice="run the same command again to continue",
        patience=_TIMEOUT,
        prefetch=2,  # only a few, because encoded long videos are large
    )


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


class _Sources(Dataset[Encoded | str]):
    """Encodes a source when it is read. A video that cannot be packed becomes the reason."""

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
