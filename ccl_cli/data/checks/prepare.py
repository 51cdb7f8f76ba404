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
from ccl_cli.utils.download import FAILURES, Progress, download, download_fault, offline_variable, reason


def prepare(manifest: Manifest, path: Path, effort: Effort, *, frames: int) -> Report:
    """Check every listed video, see :func:`check`, and write the manifest, including unreadable videos.

    Raises:
        UsageError: ``path`` is another file, or the manifest of another data set.
        DataError: none of the listed videos can be read.
    """
    _check_output(manifest, path)
    report = check(manifest, effort, frames=frames)
    if not report.inspections:
        reasons = [f"The first: {each.reason}." for each in report.problems[:1]]
        raise DataError(f"None of the {len(manifest.videos)} listed videos can be read.", *reasons)
    folders = {f"{video.path.parent}{os.sep}" for video in manifest.videos if isinstance(video.path, Path)}
    manifest.save(path, Path(os.path.commonpath([min(folders), max(folders)])))  # the common path of all
    return report


def _check_output(manifest: Manifest, path: Path) -> None:
    """Check that the output replaces nothing but a manifest of the same data set."""
    try:
        name = read_header(path)["name"] if path.exists() else manifest.name
    except DataError:
        name = None
    if name != manifest.name:
        raise UsageError(
            f"'{path}' exists and is not a manifest of '{manifest.name}'.", "Name another file with --output."
        )


def fetch_list(file: ListFile, place: Path, progress: Progress | None = None) -> None:
    """Download a list to its place, for an archive the folder in it. An interrupted download continues.

    Raises:
        SystemSetupError: there is no network, an environment variable forbids its use, the file differs
            from the published one, or the disk is full.
    """
    part = place.with_name(f".{file.url.rpartition('/')[2]}.part")
    try:
        if variable := offline_variable():
            raise ConnectionError(f"{variable} is set")
        download(file.url, part, progress)
        _move(part, file, place)
    except (*FAILURES, ValueError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise SystemSetupError(
            f"{file.url} was not downloaded: {reason(error)}.",
            f"Run the command again, or download it elsewhere; its {file.title} belong at {place}.",
        ) from error


def _move(part: Path, file: ListFile, place: Path) -> None:
    """Check a downloaded file and move it, or the folder in an archive, to its place; it appears complete."""
    try:
        if wrong := download_fault(part, file.checksum):
            raise ValueError(f"it is not the published list, {wrong}")
        if not file.url.endswith(".zip"):
            part.replace(place)
            return
        with TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as folder:
            with zipfile.ZipFile(part) as archive:  # zipfile extracts nothing outside the folder
                archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".txt")])
            (Path(folder) / place.name).replace(place)
    finally:
        part.unlink(missing_ok=True)
