"""From what a user has of a data set to a manifest: every listed video looked into and counted."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ccl_cli.data.checks.crash_proof import Lost
from ccl_cli.data.checks.findings import ABSENT, LOOK, Effort, examine
from ccl_cli.data.checks.inspect import Finding, Subject
from ccl_cli.data.manifest import SPLITS, Manifest
from ccl_cli.data.sources.about import ListFile
from ccl_cli.data.sources.manifest import header
from ccl_cli.data.video.storage import Packed
from ccl_cli.errors import DataError, EnvironmentError_, UsageError
from ccl_cli.utils.download import FAILURES, Progress, download, fault, forbidden, reason

# Listed = found + missing; found = readable + unreadable; readable = those of the three states of sound.
COLUMNS = ("listed", "missing", "found", "unreadable", "readable", "with sound", "silent", "no track")
SOUND = {"present": "with sound", "silent": "silent", "no track": "no track"}

_LARGEST = 100_000_000  # bytes of a published list
_OTHER = "Name another file with --output."

Counts = dict[str, dict[str, dict[str, int]]]


@dataclass(frozen=True)
class Prepared:
    """What came of it.

    Attributes:
        manifest: All listed videos, also those that are missing or unreadable.
        path: Where it was written.
        counts: By split, class and one of ``COLUMNS``; classes that a split does not list are left out.
        unreadable: Reasons, by the videos' ids.
    """

    manifest: Manifest
    path: Path
    counts: Counts
    unreadable: dict[str, str]

    def totals(self) -> dict[str, dict[str, int]]:
        """By split and one of ``COLUMNS``."""
        return {
            split: {column: sum(row[column] for row in classes.values()) for column in COLUMNS}
            for split, classes in self.counts.items()
        }

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return {
            "manifest": str(self.path),
            "name": self.manifest.name,
            "videos": len(self.manifest.videos),
            "hash": self.manifest.hash,
            "totals": self.totals(),
            "counts": self.counts,
            "unreadable": self.unreadable,
        }


def prepare(manifest: Manifest, path: Path, effort: Effort) -> Prepared:
    """Look into every video and write the manifest with what was counted, whole or not at all.

    Args:
        manifest: As a source lists it.
        path: Where to write it.
        effort: How hard to try.

    Raises:
        UsageError: another data set's manifest, or something else, is at ``path``.
        DataError: none of the listed videos is there or readable.
        EnvironmentError_: ``path`` cannot be written.
        Interrupted: stopped by a signal; the same call goes on.
    """
    _check_output(manifest, path)
    tally: Counter[tuple[str, int, str]] = Counter((v.split, v.label, "listed") for v in manifest.videos)
    unreadable: dict[int, str] = {}
    for place, found in examine(LOOK, subjects(manifest), effort):
        video = manifest.videos[place]
        for column in _columns(found):
            tally[video.split, video.label, column] += 1
        if "unreadable" in _columns(found):
            unreadable[place] = reason_of(found)
    counts = _by_split(manifest, tally)
    if not any(row["readable"] for classes in counts.values() for row in classes.values()):
        raise DataError(
            f"None of the {len(manifest.videos)} listed videos can be read.",
            f"The first: {next(iter(unreadable.values()), 'missing')}.",
        )
    manifest.save(path, _root(manifest), {"hash": manifest.hash, "counts": counts})
    reasons = {manifest.videos[place].id: unreadable[place] for place in sorted(unreadable)}
    return Prepared(manifest, path, counts, reasons)


def subjects(manifest: Manifest) -> list[Subject]:
    """What there is to look at, in the order of the videos.

    Raises:
        DataError: they are packed.
    """
    if any(isinstance(video.path, Packed) for video in manifest.videos):
        raise DataError(
            f"'{manifest.name}' is packed: its videos were looked into when that was done.",
            "Name the data set that it was packed from.",
        )
    return [Subject(str(video.path), video.start, video.end) for video in manifest.videos]


def reason_of(found: Finding | Lost) -> str:
    """Why a video cannot be read, in a few words."""
    return found.reason if isinstance(found, Lost) else found.fault or ""


def _columns(found: Finding | Lost) -> tuple[str, ...]:
    if found is ABSENT:
        return ("missing",)
    if isinstance(found, Lost) or found.fault:
        return "found", "unreadable"
    return "found", "readable", SOUND[found.sound]


def _by_split(manifest: Manifest, tally: Mapping[tuple[str, int, str], int]) -> Counts:
    counts: Counts = {}
    for split, (label, name) in product(SPLITS, enumerate(manifest.classes)):
        if tally[split, label, "listed"]:
            row = {column: tally[split, label, column] for column in COLUMNS}
            counts.setdefault(split, {})[name] = row
    return counts


def _root(manifest: Manifest) -> Path:
    """The deepest folder above all videos."""
    folders = {f"{video.path.parent}{os.sep}" for video in manifest.videos if isinstance(video.path, Path)}
    return Path(os.path.commonpath([min(folders), max(folders)]))  # what these two share, all of them do


def _check_output(manifest: Manifest, path: Path) -> None:
    """A manifest of the same data set may be replaced, nothing else."""
    if not path.exists():
        return
    try:
        there = header(path).get("name")
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"'{path}' is there, and is no manifest.", _OTHER) from error
    if there != manifest.name:
        raise UsageError(
            f"'{path}' is the manifest of '{there}', not of '{manifest.name}'.",
            _OTHER,
        )


# -- lists that publishers offer


def fetch_list(file: ListFile, place: Path, progress: Progress | None = None) -> None:
    """Download a list to where it belongs; an interrupted download goes on where it stopped.

    Args:
        file: The list.
        place: Path of the file; of an archive, of the folder that is in it.
        progress: Called as the bytes come.

    Raises:
        EnvironmentError_: no network wanted or none to be had, other bytes than the published ones, or no
            room.
    """
    if variable := forbidden():
        raise _not_fetched(file, place, f"{variable} is set")
    part = place.with_name(f".{file.url.rpartition('/')[2]}.part")
    try:
        download(file.url, part, progress)
        if wrong := fault(part, file.checksum):
            part.unlink()
            raise EnvironmentError_(
                f"What {file.url} sends is not the published list: {wrong}; it was thrown away.",
                f"If the publisher has changed it, download it yourself and put it at {place}.",
            )
        if file.url.endswith(".zip"):
            _unpack(part, file, place)
        else:
            part.replace(place)
    except FAILURES as error:
        raise _not_fetched(file, place, reason(error)) from error


def _unpack(archive: Path, file: ListFile, place: Path) -> None:
    """The text files of the folder in the archive, all at once."""
    with TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as scratch:
        folder = Path(scratch) / place.name
        folder.mkdir()
        try:
            with zipfile.ZipFile(archive) as packed:
                for name in filter(re.compile(r"(.*/)?[\w-]+\.txt").fullmatch, packed.namelist()):
                    if packed.getinfo(name).file_size > _LARGEST:
                        raise ValueError(f"'{name}' is too large for a list")
                    (folder / Path(name).name).write_bytes(packed.read(name))
        except (zipfile.BadZipFile, ValueError, EOFError, zlib.error) as error:
            archive.unlink()
            raise EnvironmentError_(
                f"What {file.url} sends is no whole zip archive; it was thrown away.", "Try again."
            ) from error
        folder.replace(place)
    archive.unlink()


def _not_fetched(file: ListFile, place: Path, why: str) -> EnvironmentError_:
    return EnvironmentError_(
        f"{file.url} was not downloaded: {why}.",
        f"Run the command again, or download it elsewhere; its {file.title} belong at {place}.",
    )
