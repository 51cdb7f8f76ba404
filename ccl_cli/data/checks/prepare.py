"""``ccl data prepare``: a checked manifest from a published list and the user's videos."""

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
    """Check every listed video and write the manifest, including missing and unreadable videos.

    Args:
        manifest: Manifest of a data source.
        path: Output file.
        effort: Resources.
        frames: Length of a clip, as in :func:`check`.

    Raises:
        UsageError: ``path`` is another file, or the manifest of another data set.
        DataError: none of the listed videos can be read.
        SystemSetupError: ``path`` cannot be written.
        Interrupted: stopped by a signal; the same call continues.
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
    return Path(os.path.commonpath([min(folders), max(folders)]))  # the common path of all


def _check_output(manifest: Manifest, path: Path) -> None:
    """Check that the output replaces nothing but a manifest of the same data set."""
    if not path.exists():
        return
    try:
        name = read_header(path).get("name")
    except DataError as error:
        raise UsageError(f"'{path}' exists and is not a manifest.", _OTHER) from error
    if name != manifest.name:
        raise UsageError(f"'{path}' is the manifest of '{name}', not of '{manifest.name}'.", _OTHER)


# -- lists that publishers offer


def fetch_list(file: ListFile, place: Path, progress: Progress | None = None) -> None:
    """Download a list. An interrupted download continues where it stopped.

    Args:
        file: The list.
        place: Path of the file; for an archive, of the folder in it.
        progress: Called during the download.

    Raises:
        SystemSetupError: there is no network, an environment variable forbids its use, the file differs
            from the published one, or the disk is full.
    """
    if variable := forbidden():
        raise _not_fetched(file, place, f"{variable} is set")
    part = place.with_name(f".{file.url.rpartition('/')[2]}.part")
    try:
        download(file.url, part, progress)
        if wrong := fault(part, file.checksum):
            part.unlink()
            raise SystemSetupError(
                f"What {file.url} sends is not the published list: {wrong}; it was deleted.",
                f"If the publisher has changed it, download it yourself and put it at {place}.",
            )
        if file.url.endswith(".zip"):
            _unpack(part, file, place)
        else:
            part.replace(place)
    except FAILURES as error:
        raise _not_fetched(file, place, reason(error)) from error


def _unpack(archive: Path, file: ListFile, place: Path) -> None:
    """Extract the text files of the archive's folder, which appears when it is complete."""
    try:
        with TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as folder:
            with zipfile.ZipFile(archive) as packed:  # zipfile extracts nothing outside the folder
                packed.extractall(folder, [name for name in packed.namelist() if name.endswith(".txt")])
            (Path(folder) / place.name).replace(place)
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error) as error:
        raise SystemSetupError(
            f"What {file.url} sends is not a complete zip archive; it was deleted.", "Try again."
        ) from error
    finally:
        archive.unlink()


def _not_fetched(file: ListFile, place: Path, why: str) -> SystemSetupError:
    return SystemSetupError(
        f"{file.url} was not downloaded: {why}.",
        f"Run the command again, or download it elsewhere; its {file.title} belong at {place}.",
    )
