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
from itertools import count
from pathlib import Path
from typing import Any

from ccl_cli.data.manifest import Manifest, Video, fault
from ccl_cli.data.shards.encode import Encoded
from ccl_cli.data.video.storage import RECORD, Location, Member, Packed, is_url, length, read_range
from ccl_cli.errors import DataError
from ccl_cli.utils import json_text
from ccl_cli.utils.files import atomic_path, write_text
from ccl_cli.utils.json_text import fits

INDEX = "index.json"
FORMAT = "ccl-shards-1"
# What a file of the right format and of senseless content makes Python say.
_SENSELESS = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)
_AT_ONCE = 16  # questions to a server


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


def write_shard(path: Path, samples: Iterable[Encoded], limit: int) -> None:
    """Write samples until the shard holds at least ``limit`` bytes; it is whole or absent.

    Raises:
        OSError: the disk refuses.
    """
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
        for sample in samples:
            for suffix, data in sample.members.items():
                entry = tarfile.TarInfo(
                    f"{sample.key}.{suffix}"
                )  # of nobody, at no time: always the same bytes
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
    records: dict[str, Any] = {}
    try:
        end = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                if not entry.isreg() or entry.issparse() or entry.offset_data + entry.size > end:
                    raise ValueError(f"'{entry.name}' is no plain file, or a larger one than is there")
                key, _, suffix = entry.name.rpartition(".")
                members.setdefault(key, []).append(Member(suffix, entry.offset_data, entry.size))
                if suffix == RECORD and (file := tar.extractfile(entry)):
                    records[key] = _summary(json_text.parse(file.read()))
        return [Sample(key, tuple(places), **records[key]) for key, places in members.items()]
    except (tarfile.TarError, *_SENSELESS) as error:
        raise DataError(f"The shard '{path}' is damaged.", "Delete it and pack again.") from error


def _summary(record: Mapping[str, Any]) -> dict[str, Any]:
    picture, sound = record["picture"], record["sound"]
    return {
        "rows": tuple(row["id"] for row in record["rows"]),
        "sha256": record["sha256"],
        "seconds": (picture["end_pts"] - picture["pts"][0]) * float(Fraction(*picture["time_base"])),
        "sound": sound.get("state", "left out") if sound else "no track",
    }


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
    samples: list[dict[str, Any]] = []
    of_row: dict[str, int] = {}
    for number, samples_of_shard in enumerate(shards.values()):
        for sample in samples_of_shard:
            of_row.update(dict.fromkeys(sample.rows, len(samples)))
            entry = {"shard": number, "key": sample.key, "members": sample.members, "sha256": sample.sha256}
            samples.append(entry)
    index = {
        "format": FORMAT,
        "name": manifest.name,
        "packed_from": manifest.hash,
        "settings": dict(settings),
        "classes": manifest.classes,
        "shards": [{"name": name, "size": (folder / name).stat().st_size} for name in shards],
        "samples": samples,
        "videos": [_row(video, of_row, unreadable) for video in manifest.videos],
    }
    write_text(folder / INDEX, json.dumps(index, separators=(",", ":")) + "\n")


def read_manifest(location: str) -> Manifest:
    """The manifest of a folder of shards, after a look at whether all of them are whole.

    Args:
        location: Path or URL of the folder.

    Raises:
        DataError: no index there, an unknown one, or shards that are not what it says.
        EnvironmentError_: the server cannot be reached, or cannot send parts of files.
    """
    index = read_index(location)
    try:
        addresses = [_join(location, _plain(shard["name"])) for shard in index["shards"]]
        sizes = [shard["size"] for shard in index["shards"]]
        _check_sizes(addresses, sizes)
        if not fits(index, {"name": str, "classes": [str]}):
            raise ValueError("no name or no classes")
        samples = [_sample(each, addresses, sizes) for each in index["samples"]]
        classes = tuple(index["classes"])
        videos = tuple(_video(row, samples, location, len(classes)) for row in index["videos"])
        return Manifest(index["name"], classes, videos)
    except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
        raise _unknown(location) from error


def read_index(location: str) -> dict[str, Any]:
    """The index of a folder of shards; errors as in :func:`read_manifest`."""
    if not is_url(location) and not (Path(location) / INDEX).is_file():
        raise DataError(
            f"'{location}' holds no {INDEX}.",
            "Make the shards with `ccl data pack`; if that was interrupted, run it again to finish.",
        )
    try:
        address = _join(location, INDEX)
        index: dict[str, Any] = json_text.parse(read_range(address, 0, length(address)))
        if index["format"] != FORMAT:
            raise ValueError("another format")
        return index
    except (ValueError, KeyError, TypeError) as error:
        raise _unknown(location) from error


def _unknown(location: str) -> DataError:
    return DataError(f"The {INDEX} of '{location}' is not one of '{FORMAT}'.", "Pack the set with this ccl.")


def _check_sizes(addresses: Sequence[str], sizes: Sequence[int]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        lengths = list(pool.map(length, addresses))
    for address, size, there in zip(addresses, sizes, lengths, strict=True):
        if size != there:
            what = "is cut off" if there < size else "is another one than the index describes"
            raise DataError(
                f"The shard '{address}' {what}: it has {there:,} bytes, the index says {size:,}.",
                "Copy or pack the set again.",
            )
    if addresses and sizes[0]:
        read_range(addresses[0], 0, 1)  # a server that ignores ranges is refused now, not in the first batch


def _join(location: str, name: str) -> str:
    return f"{location.rstrip('/')}/{name}" if is_url(location) else str(Path(location) / name)


def _plain(name: str) -> str:
    """The name itself, if it is that of a file in the index's own folder."""
    if name != Path(name).name:
        raise ValueError(name)
    return name


def _sample(each: dict[str, Any], addresses: Sequence[str], sizes: Sequence[int]) -> Packed:
    if type(each["shard"]) is not int:
        raise ValueError("a shard must be named by its number")
    shard, members = each["shard"], tuple(Member(*one) for one in each["members"])
    within = all(0 <= one.offset <= one.offset + one.size <= sizes[shard] for one in members)
    if shard < 0 or not within:
        raise ValueError(f"outside of the shard: {each['key']}")
    return Packed(addresses[shard], each["key"], members)


def _row(video: Video, of_row: Mapping[str, int], unreadable: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": video.id, "label": video.label, "split": video.split}
    row |= {key: at for key, at in (("start", video.start), ("end", video.end)) if at is not None}
    if video.id in of_row:
        return row | {"sample": of_row[video.id]}
    return row | {"unreadable": unreadable[video.id]}


def _video(row: dict[str, Any], samples: Sequence[Packed], location: str, classes: int) -> Video:
    path: Location
    if "sample" in row:
        path = samples[row["sample"]]
    else:
        path = Packed(location, row["id"], reason=f"'{row['id']}' is not in the shards: {row['unreadable']}")
    video = Video(row["id"], path, row["label"], row["split"], row.get("start"), row.get("end"))
    if wrong := fault(video, classes):
        raise ValueError(wrong)
    return video
