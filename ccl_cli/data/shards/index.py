"""Shards, which are tar files as in WebDataset, and the index of a set: where every video lies."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeInt

from ccl_cli.data.manifest import ABSENT, Manifest, Videos
from ccl_cli.data.shards.encode import Encoded
from ccl_cli.data.video.shard_reader import Record, StrictModel
from ccl_cli.data.video.storage import RECORD, Member, Packed, address_size, is_url, read_range
from ccl_cli.errors import DataError
from ccl_cli.utils import json_text
from ccl_cli.utils.files import atomic_path, write_text
from ccl_cli.utils.paths import cache_dir

INDEX = "index.json"
INDEX_FORMAT = "ccl-shards-2"
VIDEOS = "videos.arrow"
_CONNECTIONS = 16  # parallel connections to a server
_BLOCK = 2**26  # bytes of the list of videos in one request


@dataclass(frozen=True, slots=True)
class Sample:
    """A packed video in the index.

    Attributes:
        key: Name of its members.
        members: Positions of its members in the shard.
        rows: Ids of the manifest's rows that use it.
        seconds: Duration of the video.
        sound: "present", "silent", "no track" or "left out".
    """

    key: str
    members: tuple[Member, ...]
    rows: tuple[str, ...]
    seconds: float
    sound: str


class _ShardEntry(StrictModel):
    name: Annotated[str, Field(pattern=r"^[\w-]+\.tar$")]  # in the index's own folder
    size: NonNegativeInt


class _Index(StrictModel):
    format: Literal["ccl-shards-2"]
    hash: str  # of the list of videos
    shards: list[_ShardEntry]


def write_shard(path: Path, samples: Iterable[Encoded], limit: int) -> None:
    """Write samples until the shard has at least ``limit`` bytes. The file appears when it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
        for sample in samples:
            for suffix, data in sample.members.items():
                # Owner and time stay zero, so that the same samples give the same bytes.
                entry = tarfile.TarInfo(f"{sample.key}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
            if tar.offset >= limit:
                break


def read_shard(path: Path) -> list[Sample]:
    """List the samples of a finished shard.

    Raises:
        DataError: the shard is damaged.
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
    return Sample(key, members, tuple(row.id for row in record.rows), seconds, sound)


def keys_for(names: Iterable[str]) -> dict[str, str]:
    """Make a key without dots for each name, because WebDataset reads a member's kind from its first dot on.

    Args:
        names: Distinct names; of several names with the same key, later ones get a number.
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
        folder: Folder of the shards.
        manifest: The data set that was packed.
        settings: Encoding options.
        shards: Samples of each shard, by its name.
        unreadable: Reasons by id, for rows that could not be packed.
    """
    places = {
        row: Packed(name, sample.key, sample.members)
        for name, samples in shards.items()
        for sample in samples
        for row in sample.rows
    }
    for video in manifest.videos:
        if video.id not in places:
            reason = f"'{video.id}' is not in the shards: {unreadable.get(video.id)}"
            places[video.id] = Packed("", video.id, reason=reason)
    videos = Videos.of(replace(video, path=places[video.id]) for video in manifest.videos)
    sizes = [sum(member.size for member in places[name].members) or ABSENT for name in videos.ids]
    columns = replace(videos.columns, size=np.array(sizes, np.int64))
    listed = Manifest(manifest.name, manifest.classes, Videos(columns))
    listed.save(folder / VIDEOS)
    index = {
        "format": INDEX_FORMAT,
        "name": manifest.name,
        "packed_from": manifest.hash,
        "settings": dict(settings),
        "hash": listed.hash,
        "shards": [{"name": name, "size": (folder / name).stat().st_size} for name in shards],
        "unreadable": dict(unreadable),
    }
    write_text(folder / INDEX, json.dumps(index, indent=1) + "\n")


def read_manifest(location: str) -> Manifest:
    """Read the manifest of a folder of shards, and check the sizes of all shards.

    Args:
        location: Path or URL of the folder.

    Raises:
        DataError: there is no index, it has another format, or a shard does not match it.
        SystemSetupError: the server cannot be reached, or cannot send parts of files.
    """
    if not is_url(location) and not (Path(location) / INDEX).is_file():
        raise DataError(
            f"'{location}' does not contain {INDEX}.",
            "Make the shards with `ccl data pack`; if that was interrupted, run it again to finish.",
        )
    address = _join(location, INDEX)
    try:
        index = _Index.model_validate(json_text.parse(read_range(address, 0, address_size(address))))
    except ValueError as error:
        raise DataError(
            f"The {INDEX} of '{location}' is not one of '{INDEX_FORMAT}'.", "Pack the set with this ccl."
        ) from error
    _check_sizes([_join(location, shard.name) for shard in index.shards], [s.size for s in index.shards])
    path = _fetch_videos(location, index.hash) if is_url(location) else Path(location) / VIDEOS
    manifest = Manifest.load(path, location)
    if manifest.hash != index.hash:
        raise DataError(
            f"{VIDEOS} and {INDEX} of '{location}' belong to two sets.", "Copy or pack the set again."
        )
    return manifest


def _fetch_videos(location: str, digest: str) -> Path:
    """Download the list of videos to ``CCL_HOME``, because only a file can be mapped."""
    address = _join(location, VIDEOS)
    size, name = address_size(address), hashlib.sha256(f"{address} {digest}".encode()).hexdigest()[:16]
    path = cache_dir() / "manifests" / f"{name}.arrow"
    if path.is_file() and path.stat().st_size == size:
        return path
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for begin in range(0, size, _BLOCK):
            file.write(read_range(address, begin, min(_BLOCK, size - begin)))
    return path


def _check_sizes(addresses: Sequence[str], sizes: Sequence[int]) -> None:
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        found = list(pool.map(address_size, addresses))
    for address, size, actual in zip(addresses, sizes, found, strict=True):
        if size != actual:
            state = "is cut off" if actual < size else "is another one than the index describes"
            raise DataError(
                f"The shard '{address}' {state}: it has {actual:,} bytes, the index says {size:,}.",
                "Copy or pack the set again.",
            )
    if addresses and sizes[0]:
        read_range(addresses[0], 0, 1)  # fails now if a server ignores ranges


def _join(location: str, name: str) -> str:
    return f"{location.rstrip('/')}/{name}" if is_url(location) else str(Path(location) / name)
