"""A library: the features of a user's own videos in one data base, each safe from the moment it is put.

A folder holds ``library.sqlite`` and, where one was asked for, an approximate index beside it. It belongs to
one model. Vectors have length one, so that a product is a cosine.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from ccl_cli.errors import DataError, SystemSetupError
from ccl_cli.utils import json_text
from ccl_cli.utils.files import changed_at, temporary_name

FILE = "library.sqlite"
_ROWS = 4096  # that are read at once
# Numbers are never given twice: with their count, the last one tells whether anything has changed.
_TABLES = """
    PRAGMA page_size = 16384;
    CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE video (number INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB UNIQUE NOT NULL,
        size INTEGER, mtime INTEGER, windows INTEGER, vector BLOB NOT NULL);
"""


class _About(BaseModel, strict=True):
    """What every library notes of itself."""

    format: Literal["ccl-library-1"] = "ccl-library-1"
    model: str
    fingerprint: str
    dim: int
    roots: list[str] = []


class Stamp(NamedTuple):
    """What tells a file from a changed one: bytes, and time of change in nanoseconds."""

    size: int
    mtime: int


def stamp_of(path: str) -> Stamp | None:
    """A file's stamp; None where there is none."""
    try:
        stat = os.stat(path)  # noqa: PTH116  (half the time of Path.stat over 200,000 rows)
    except OSError:
        return None
    return Stamp(stat.st_size, changed_at(stat))


class Library:
    """An open library; use :func:`open_library`."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base
        try:
            rows = base.execute("SELECT key, value FROM about")
            self._about = {key: json_text.parse(value) for key, value in rows}
            _About.model_validate(self._about)
        except (ValueError, TypeError) as error:
            raise sqlite3.DatabaseError("it is of another format") from error

    @property
    def model(self) -> Path:
        """The file of the model that made it."""
        return Path(self._about["model"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of that file."""
        return str(self._about["fingerprint"])

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._about["dim"])

    @property
    def roots(self) -> list[str]:
        """The files and folders that it was made from, absolute."""
        return list(self._about["roots"])

    @property
    def state(self) -> str:
        """Changes with every change of the videos."""
        count, last = self._base.execute(
            "SELECT (SELECT count(*) FROM video), (SELECT max(seq) FROM sqlite_sequence)"
        ).fetchone()
        return f"{count} of {last}"

    def __len__(self) -> int:
        return int(self._base.execute("SELECT count(*) FROM video").fetchone()[0])

    def note(self, key: str, value: object) -> None:
        """Note something about the library as a whole, such as its roots: plain values."""
        self._base.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, json.dumps(value)))
        self._about[key] = value

    def noted(self, key: str) -> Any:
        """What was noted; None where nothing was."""
        return self._about.get(key)

    def known(self) -> dict[str, Stamp]:
        """The stamp of every video by its path."""
        rows = self._base.execute("SELECT path, size, mtime FROM video")
        return {os.fsdecode(path): Stamp(size, mtime) for path, size, mtime in rows}

    def put(self, path: str, stamp: Stamp, windows: int, vector: NDArray[np.float32]) -> None:
        """Keep a video's vector, [D] of length one."""
        row = (os.fsencode(path), *stamp, windows, vector.astype(np.float32).tobytes())
        self._base.execute(
            "INSERT OR REPLACE INTO video (path, size, mtime, windows, vector) VALUES (?, ?, ?, ?, ?)", row
        )

    def drop(self, paths: Iterable[str]) -> None:
        """Forget videos, all of them or none."""
        self._base.execute("BEGIN")
        self._base.executemany("DELETE FROM video WHERE path = ?", ((os.fsencode(path),) for path in paths))
        self._base.execute("COMMIT")

    def find(self, path: str) -> tuple[Stamp, NDArray[np.float32]] | None:
        """A video's stamp and vector [D]."""
        query = "SELECT size, mtime, vector FROM video WHERE path = ?"
        row = self._base.execute(query, (os.fsencode(path),)).fetchone()
        return row and (Stamp(*row[:2]), np.frombuffer(row[2], np.float32))

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Numbers [n] and vectors [n, D] of all videos, some at a time."""
        rows = self._base.execute("SELECT number, vector FROM video ORDER BY number")
        while block := rows.fetchmany(_ROWS):
            vectors = np.frombuffer(b"".join(vector for _, vector in block), np.float32)
            yield np.array([number for number, _ in block], np.int64), vectors.reshape(-1, self.dim)

    def paths(self, numbers: Iterable[int]) -> dict[int, str]:
        """The paths of some videos by number."""
        query = "SELECT path FROM video WHERE number = ?"
        rows = ((n, self._base.execute(query, (n,)).fetchone()) for n in set(numbers))
        return {number: os.fsdecode(row[0]) for number, row in rows if row}


def create(folder: Path, *, model: Path, fingerprint: str, dim: int) -> None:
    """Make an empty library, which takes the place of one that is there.

    Raises:
        SystemSetupError: the disk refuses.
    """
    temporary = folder / temporary_name(FILE)
    temporary.unlink(missing_ok=True)
    about = _About(model=str(model), fingerprint=fingerprint, dim=dim)
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as base:
            base.execute("PRAGMA journal_mode = OFF")  # or a kill would leave that as well
            base.executescript(_TABLES)
            rows = [(key, json.dumps(value)) for key, value in about]
            base.executemany("INSERT INTO about VALUES (?, ?)", rows)
    except sqlite3.Error as error:
        temporary.unlink(missing_ok=True)
        raise _unusable(folder, error) from error
    # What a killed process left beside the old one would be taken for changes of the new one.
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal"):
        (folder / name).unlink(missing_ok=True)
    temporary.replace(folder / FILE)


@contextmanager
def open_library(folder: Path, *, write: bool = False) -> Iterator[Library]:
    """Open a library; one that is being written can be read meanwhile, as it was when it was opened.

    Raises:
        DataError: there is none, or it is damaged.
        SystemSetupError: the disk refuses.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"There is no library at '{folder}'.", "Make one: ccl index my_videos --output DIR.")
    try:
        with closing(_connected(path, write)) as base:
            yield Library(base)
            if write:
                _at_rest(base)
    except sqlite3.Error as error:
        raise _unusable(folder, error) from error


def _connected(path: Path, write: bool) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?mode={'rw' if write else 'ro'}"
    base = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)
    if write:
        # Each change is safe from a kill at once, and none is half there after a power cut.
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
    else:
        base.execute("BEGIN")
    return base


def _at_rest(base: sqlite3.Connection) -> None:
    """Leave one file, which can be read where nothing can be written, unless somebody reads it right now."""
    base.execute("PRAGMA busy_timeout = 0")
    with suppress(sqlite3.OperationalError):
        base.execute("PRAGMA journal_mode = DELETE")


def _unusable(folder: Path, error: Exception) -> DataError | SystemSetupError:
    if isinstance(error, sqlite3.OperationalError):
        return SystemSetupError(
            f"The library '{folder}' cannot be used: {error}.",
            "Look for room on the disk and for permission to write there; the same command goes on.",
        )
    return DataError(
        f"The library '{folder}' is damaged: {error}.", "Make it anew: name its folders, and --rebuild."
    )
