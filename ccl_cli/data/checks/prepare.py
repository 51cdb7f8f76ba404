"""From a published list and the user's videos to a checked manifest."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from ccl_cli.data.checks.check import Report, check
from ccl_cli.data.checks.findings import Effort
from ccl_cli.data.manifest import Manifest, read_header
from ccl_cli.data.sources.about import ListFile
from ccl_cli.errors import DataError, SystemSetupError, UsageError
from ccl_cli.utils.download import FAILURES, Progress, download, fault, forbidden, reason

_OTHER = "Name another file with --output."


def prepare(manifest: Manifest, path: Path, effort: Effort, *, frames: int) -> Report:
    """Check every listed video and write the manifest, missing and unreadable videos included.

    Args:
        manifest: As a source lists it.
        path: Where to write it.
        effort: Resources.
        frames: Length of a clip, as in :func:`check`.

    Raises:
        UsageError: another data set's manifest, or something else, is at ``path``.
        DataError: none of the listed videos can be read.
        SystemSetupError: ``path`` cannot be written.
        Interrupted: stopped by a signal; the same call goes on.
    """
    _check_output(manifest, path)
    report = check(manifest, effort, frames=frames)
    if not report.inspections:
        first = next(iter(report.problems), None)
        raise DataError(
            f"None of the {len(manifest.videos)} listed videos can be read.",
            f"The first: {first.reason}." if first else None,
        )
    manifest.save(path, _root(manifest))
    return report


def _root(manifest: Manifest) -> Path:
    """The deepest folder above all videos."""
    folders = {f"{video.path.parent}{os.sep}" for video in manifest.videos if isinstance(video.path, Path)}
    return Path(os.path.commonpath([min(folders), max(folders)]))  # what these two share, all of them do


def _check_output(manifest: Manifest, path: Path) -> None:
    """A manifest of the same data set may be replaced, nothing else."""
    if not path.exists():
        return
    try:
        name = read_header(path).get("name")
    except DataError as error:
        raise UsageError(f"'{path}' is there, and is no manifest.", _OTHER) from error
    if name != manifest.name:
        raise UsageError(f"'{path}' is the manifest of '{name}', not of '{manifest.name}'.", _OTHER)


# -- lists that publishers offer


def fetch_list(file: ListFile, place: Path, progress: Progress | None = None) -> None:
    """Download a list to where it belongs; an interrupted download goes on where it stopped.

    Args:
        file: The list.
        place: Path of the file; of an archive, of the folder that is in it.
        progress: Called as the bytes come.

    Raises:
        SystemSetupError: no network wanted or none to be had, other bytes than the published ones, or no
            room.
    """
    if variable := forbidden():
        raise _not_fetched(file, place, f"{variable} is set")
    part = place.with_name(f".{file.url.rpartition('/')[2]}.part")
    try:
        download(file.url, part, progress)
        if wrong := fault(part, file.checksum):
            part.unlink()
            raise SystemSetupError(
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
    try:
        with TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as folder:
            with zipfile.ZipFile(archive) as packed:  # it extracts nothing outside of the folder
                packed.extractall(folder, [name for name in packed.namelist() if name.endswith(".txt")])
            (Path(folder) / place.name).replace(place)
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error) as error:
        raise SystemSetupError(
            f"What {file.url} sends is no whole zip archive; it was thrown away.", "Try again."
        ) from error
    finally:
        archive.unlink()


def _not_fetched(file: ListFile, place: Path, why: str) -> SystemSetupError:
    return SystemSetupError(
        f"{file.url} was not downloaded: {why}.",
        f"Run the command again, or download it elsewhere; its {file.title} belong at {place}.",
    )
