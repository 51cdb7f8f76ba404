"""A table of captions: a CSV file with the columns ``id`` and ``text``."""

from __future__ import annotations

import csv
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from ccl_cli.errors import DataError

Captions = Mapping[str, tuple[str, ...]]


def read_captions(path: str, digest: str) -> Captions:
    """Read the captions by video id; each process reads the file once.

    Args:
        path: Path of the file.
        digest: Hash of its content, see :func:`digest_of`.

    Raises:
        DataError: the file is missing, not a table of captions, or its hash differs.
    """
    try:
        return _parsed(path, digest, Path(path).stat().st_mtime_ns)
    except (OSError, UnicodeError, csv.Error) as error:
        raise _unreadable(path, error) from error


def digest_of(path: str) -> str:
    """Hash a file's content to 16 hex digits.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise _unreadable(path, error) from error


@functools.lru_cache(maxsize=8)
def _parsed(path: str, digest: str, _mtime: int) -> Captions:
    if digest_of(path) != digest:
        raise DataError(f"The captions '{path}' have changed since the start of the run.", "Start a new run.")
    captions: dict[str, tuple[str, ...]] = {}
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        if missing := {"id", "text"} - set(reader.fieldnames or ()):
            raise DataError(f"'{path}' has no column '{min(missing)}'.", "The columns must be id and text.")
        for row in reader:
            text = " ".join((row["text"] or "").split())
            if row["id"] and text:
                captions[row["id"]] = (*captions.get(row["id"], ()), text)
    if not captions:
        raise DataError(f"'{path}' contains no captions.", "Add rows with a video id and a text.")
    return captions


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(
        f"'{path}' cannot be read as captions: {error}.", "captions=FILE must be a CSV file in UTF-8."
    )
