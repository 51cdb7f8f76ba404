"""Shards: tar files of packed videos as WebDataset has them, and an index of where everything lies."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from ccl_cli.data.manifest import Manifest, Video, Videos, fault
from ccl_cli.data.shards.encode import Encoded
from ccl_cli.data.video.shard_reader import Record
from ccl_cli.data.video.storage import RECORD, Member, Packed, is_url, length, read_range
from ccl_cli.errors import DataError
from ccl_cli.utils import json_text
from ccl_cli.utils.files import atomic_path, write_text

INDEX = "index.json"
INDEX_FORMAT = "ccl-shards-1"
_CONNECTIONS = 16  # to a server, at a time


@dataclass(frozen=True, slots=True)
class Sample:
    """A packed video, as far as the index and a summary need it.

    Attributes:
        key: Name of its members.
        members: Where they lie in the shard.
        rows: Ids of the manifest's rows that it serves.
        sha256: First 16 hex digits over its picture and sound.
        seconds: Length of the video.
        sound: "present", "silent", "no track" or "left out".
    """

    key: str
    members: tuple[Member, ...]
    rows: tuple[str, ...]
    sha256: str
    seconds: float
    sound: str


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _ShardEntry(_Strict):
    name: Annotated[str, Field(pattern=r"^[\w-]+\.tar$")]  # in the index's own folder
    size: NonNegativeInt


class _SampleEntry(_Strict):
    shard: NonNegativeInt
    key: str
    members: list[Annotated[tuple[str, NonNegativeInt, NonNegativeInt], Field(strict=False)]]


class _VideoEntry(_Strict):
    id: str
    label: int | None = None
    split: str
    start: float | None = None
    end: float | None = None
    sample: NonNegativeInt | None = None
    unreadable: str = ""


class _Index(_Strict):
    format: Literal["ccl-shards-1"]
    name: str
    classes: list[str]
    shards: list[_ShardEntry]
    samples: list[_SampleEntry]
    videos: list[_VideoEntry]


def write_shard(path: Path, samples: Iterable[Encoded], limit: int) -> None:
    """Write samples until the shard holds at least ``limit`` bytes; it is whole or absent.

    Raises:
        OSError: the disk refuses.
    """
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
        for sample in samples:
            for suffix, data in sample.members.items():
                # Owner and time stay zero: the same samples give the same bytes.
                entry = tarfile.TarInfo(f"{sample.key}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
            if tar.offset >= limit:
                break


def read_shard(path: Path) -> list[Sample]:
    """List what a finished shard holds.

    Raises:
        DataError: it is damaged.
    """
    members: dict[str, list[Member]] = {}
    records: dict[str, Record] = {}
    try:
        end = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                if not entry.isreg() or entry.issparse() or entry.offset_data + entry.size > end:
                    raise ValueError(f"'{entry.name}' is no plain file, or is cut off")
                key, _, suffix = entry.name.rpartition(".")
                members.setdefault(key, []).append(Member(suffix, entry.offset_data, entry.size))
                if suffix == RECORD and (file := tar.extractfile(entry)):
                    records[key] = Record.model_validate(json_text.parse(file.read()))
        return [_sample(key, tuple(each), records[key]) for key, each in members.items()]
    except (tarfile.TarError, OSError, ValueError, LookupError, ArithmeticError) as error:
        raise DataError(f"The shard '{path}' is damaged.", "Delete it and pack again.") from error


def _sample(key: str, members: tuple[Member, ...], record: Record) -> Sample:
    picture = record.picture
    seconds = (picture.end_pts - picture.pts[0]) * float(Fraction(*picture.time_base))
    sound = record.sound.state if record.sound else "no track"
    return Sample(key, members, tuple(row.id for row in record.rows), record.sha256, seconds, sound)


def shard_names(split: str) -> Iterator[str]:
    """``train-000000.tar`` and so on."""
    return (f"{split}-{number:06}.tar" for number in count())


def keys_for(names: Iterable[str]) -> dict[str, str]:
    """A key for each name: readers take what follows the first dot of a file's name as its kind.

    Args:
        names: Distinct, in the order that decides between two that would have the same key.
    """
    keys: dict[str, str] = {}
    for name in names:
        key = base = re.sub(r"[^\w/@+,=-]", "_", name).strip("/") or "_"
        for number in count(2):
            if key not in keys:
                break
            key = f"{base}-{number}"
        keys[key] = name
    return {name: key for key, name in keys.items()}


# -- the index


def write_index(
    folder: Path,
    manifest: Manifest,
    settings: Mapping[str, Any],
    shards: Mapping[str, Sequence[Sample]],
    unreadable: Mapping[str, str],
) -> None:
    """Write the index of a finished set, atomically.

    Args:
        folder: Where the shards are.
        manifest: The videos that were packed.
        settings: How.
        shards: What each shard holds, by name.
        unreadable: By id of a row, why it could not be packed.

    Raises:
        OSError: the disk refuses.
    """
    samples = [
        {"shard": number, "key": sample.key, "members": sample.members, "sha256": sample.sha256}
        for number, of_shard in enumerate(shards.values())
        for sample in of_shard
    ]
    sample_of_row = {
        row: number
        for number, sample in enumerate(chain.from_iterable(shards.values()))
        for row in sample.rows
    }
    index = {
        "format": INDEX_FORMAT,
        "name": manifest.name,
        "packed_from": manifest.hash,
        "settings": dict(settings),
        "classes": manifest.classes,
        "shards": [{"name": name, "size": (folder / name).stat().st_size} for name in shards],
        "samples": samples,
        "videos": [
            _row(video, sample_of_row.get(video.id), unreadable.get(video.id)) for video in manifest.videos
        ],
    }
    write_text(folder / INDEX, json.dumps(index, separators=(",", ":")) + "\n")


def read_manifest(location: str) -> Manifest:
    """The manifest of a folder of shards, after a check that all of them are whole.

    Args:
        location: Path or URL of the folder.

    Raises:
        DataError: no index there, an unknown one, or shards that are not what it says.
        SystemSetupError: the server cannot be reached, or cannot send parts of files.
    """
    if not is_url(location) and not (Path(location) / INDEX).is_file():
        raise DataError(
            f"'{location}' holds no {INDEX}.",
            "Make the shards with `ccl data pack`; if that was interrupted, run it again to finish.",
        )
    address = _join(location, INDEX)
    text = read_range(address, 0, length(address))
    try:
        index = _Index.model_validate(json_text.parse(text))
        addresses = [_join(location, shard.name) for shard in index.shards]
        samples = [_packed(sample, index.shards, addresses) for sample in index.samples]
        videos = Videos.of(_video(row, samples, location, len(index.classes)) for row in index.videos)
    except (ValueError, IndexError) as error:
        raise DataError(
            f"The {INDEX} of '{location}' is not one of '{INDEX_FORMAT}'.", "Pack the set with this ccl."
        ) from error
    _check_sizes(addresses, [shard.size for shard in index.shards])
    return Manifest(index.name, tuple(index.classes), videos)


def _check_sizes(addresses: Sequence[str], sizes: Sequence[int]) -> None:
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        lengths = list(pool.map(length, addresses))
    for address, size, actual in zip(addresses, sizes, lengths, strict=True):
        if size != actual:
            state = "is cut off" if actual < size else "is another one than the index describes"
            raise DataError(
                f"The shard '{address}' {state}: it has {actual:,} bytes, the index says {size:,}.",
                "Copy or pack the set again.",
            )
    if addresses and sizes[0]:
        read_range(addresses[0], 0, 1)  # a server that ignores ranges is refused now, not in the first batch


def _join(location: str, name: str) -> str:
    return f"{location.rstrip('/')}/{name}" if is_url(location) else str(Path(location) / name)


def _packed(sample: _SampleEntry, shards: Sequence[_ShardEntry], addresses: Sequence[str]) -> Packed:
    members = tuple(Member(*member) for member in sample.members)
    if any(member.offset + member.size > shards[sample.shard].size for member in members):
        raise ValueError(f"'{sample.key}' lies outside of its shard")
    return Packed(addresses[sample.shard], sample.key, members)


def _row(video: Video, sample: int | None, reason: str | None) -> dict[str, Any]:
    row = {"id": video.id, "label": video.label, "split": video.split, "start": video.start, "end": video.end}
    row |= {"sample": sample, "unreadable": reason}
    return {key: value for key, value in row.items() if value is not None}


def _video(row: _VideoEntry, samples: Sequence[Packed], location: str, classes: int) -> Video:
    if row.sample is None:
        path = Packed(location, row.id, reason=f"'{row.id}' is not in the shards: {row.unreadable}")
    else:
        path = samples[row.sample]
    video = Video(row.id, path, row.label, row.split, row.start, row.end)
    if reason := fault(video, classes):
        raise ValueError(reason)
    return video
