"""Storage of a library: features of videos in an SQLite database, one transaction per video.

A folder contains ``library.sqlite`` and optionally an approximate index. A library belongs to one model.
Vectors have unit length, so that a dot product is a cosine.
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
from ccl_cli.utils.files import temporary_name

FILE = "library.sqlite"
_ROWS = 4096  # rows per read
# Ids are never reused, so the number of videos and the last id identify the state of the library.
_TABLES = """
    PRAGMA page_size = 16384;
    CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE video (number INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB UNIQUE NOT NULL,
        size INTEGER, mtime INTEGER, vector BLOB NOT NULL);
"""


class About(BaseModel, strict=True):
    """Properties of a library.

    Attributes:
        model: File of the library's model.
        fingerprint: SHA-256 of the model file.
        dim: Dimension of a vector.
        roots: Absolute paths of the indexed files and folders.
        indexed: State of the videos when the approximate index was built; see :attr:`Library.state`.
    """

    format: Literal["ccl-library-1"] = "ccl-library-1"
    model: str
    fingerprint: str
    dim: int
    roots: list[str] = []
    indexed: str | None = None


class Stamp(NamedTuple):
    """Size in bytes and modification time in nanoseconds, to detect changed files."""

    size: int
    mtime: int


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a file, or None if it does not exist."""
    try:
        stat = os.stat(path)  # noqa: PTH116  (half the time of Path.stat over 200,000 rows)
    except OSError:
        return None
    return Stamp(stat.st_size, stat.st_mtime_ns & (2**63 - 1))  # what SQLite can store


class Library:
    """An open library; create it with :func:`open_library`."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base
        try:
            rows = base.execute("SELECT key, value FROM about")
            self.about = About.model_validate({key: json_text.parse(value) for key, value in rows})
        except (ValueError, TypeError) as error:
            raise sqlite3.DatabaseError("it has another format") from error

    @property
    def state(self) -> str:
        """Identifier that changes with every change of the videos."""
        last = self._base.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()[0]
        return f"{len(self)} of {last}"

    def __len__(self) -> int:
        return int(self._base.execute("SELECT count(*) FROM video").fetchone()[0])

    def note(self, **values: Any) -> None:
        """Change properties of the library."""
        self.about = self.about.model_copy(update=values)
        _write_about(self._base, values)

    def known(self) -> dict[str, Stamp]:
        """Return the stamp of every video by path."""
        rows = self._base.execute("SELECT path, size, mtime FROM video")
        return {os.fsdecode(path): Stamp(size, mtime) for path, size, mtime in rows}

    def put(self, path: str, stamp: Stamp, vector: NDArray[np.float32]) -> None:
        """Store the vector [D] of a video, of unit length."""
        row = (os.fsencode(path), *stamp, vector.astype(np.float32).tobytes())
        self._base.execute(
            "INSERT OR REPLACE INTO video (path, size, mtime, vector) VALUES (?, ?, ?, ?)", row
        )

    def drop(self, paths: Iterable[str]) -> None:
        """Delete videos in one transaction."""
        with self.transaction():
            rows = ((os.fsencode(path),) for path in paths)
            self._base.executemany("DELETE FROM video WHERE path = ?", rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all changes together; after an error, closing the library discards them."""
        self._base.execute("BEGIN")
        yield
        self._base.execute("COMMIT")

    def find(self, path: str) -> tuple[Stamp, NDArray[np.float32]] | None:
        """Return the stamp and vector [D] of a video."""
        query = "SELECT size, mtime, vector FROM video WHERE path = ?"
        row = self._base.execute(query, (os.fsencode(path),)).fetchone()
        return row and (Stamp(*row[:2]), np.frombuffer(row[2], np.float32))

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield ids [n] and vectors [n, D] of all videos in blocks."""
        rows = self._base.execute("SELECT number, vector FROM video ORDER BY number")
        while block := rows.fetchmany(_ROWS):
            vectors = np.frombuffer(b"".join(vector for _, vector in block), np.float32)
            yield np.array([number for number, _ in block], np.int64), vectors.reshape(-1, self.about.dim)

    def paths(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the paths of videos by id."""
        query = "SELECT path FROM video WHERE number = ?"
        rows = ((n, self._base.execute(query, (n,)).fetchone()) for n in set(numbers))
        return {number: os.fsdecode(row[0]) for number, row in rows if row}


def create(folder: Path, *, model: Path, fingerprint: str, dim: int) -> None:
    """Create an empty library, replacing an existing one.

    Raises:
        SystemSetupError: the file cannot be opened.
    """
    temporary = folder / temporary_name(FILE)
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(temporary, isolation_level=None)) as base:
            base.execute("PRAGMA journal_mode = OFF")  # otherwise a kill would leave a journal file
            base.executescript(_TABLES)
            about = About(model=str(model.absolute()), fingerprint=fingerprint, dim=dim)
            _write_about(base, about.model_dump())
    except sqlite3.Error as error:
        temporary.unlink(missing_ok=True)
        raise _unusable(folder, error) from error
    # Delete journal files of the old library, which SQLite would apply to the new one.
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal"):
        (folder / name).unlink(missing_ok=True)
    temporary.replace(folder / FILE)


@contextmanager
def open_library(folder: Path, *, write: bool = False) -> Iterator[Library]:
    """Open a library. Readers see a snapshot while another process writes.

    Raises:
        DataError: the library does not exist or is damaged.
        SystemSetupError: the file cannot be opened.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"There is no library at '{folder}'.", "Build one: ccl index my_videos --output DIR.")
    uri = f"file:{quote(str(path.absolute()))}?mode={'rw' if write else 'ro'}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)) as base:
            if not write:
                base.execute("BEGIN")
                yield Library(base)
                return
            # Every transaction survives a kill, and none is half-written after a power failure.
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = NORMAL")
            yield Library(base)
            # Merge the journal into one file, for read-only disks, unless another process is reading.
            base.execute("PRAGMA busy_timeout = 0")
            with suppress(sqlite3.OperationalError):
                base.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise _unusable(folder, error) from error


def _write_about(base: sqlite3.Connection, values: dict[str, Any]) -> None:
    rows = [(key, json.dumps(value)) for key, value in values.items()]
    base.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)


def _unusable(folder: Path, error: Exception) -> DataError | SystemSetupError:
    if isinstance(error, sqlite3.OperationalError):
        return SystemSetupError(
            f"The library '{folder}' cannot be used: {error}.",
            "Check the free disk space and the permissions, and run the same command again.",
        )
    return DataError(
        f"The library '{folder}' is damaged: {error}.", "Rebuild it with ccl index FOLDERS --rebuild."
    )
