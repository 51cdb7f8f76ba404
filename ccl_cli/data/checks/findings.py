"""What has been found out about files, kept as it comes: the next run, or another command, begins there."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import av

from ccl_cli.data.checks import inspect
from ccl_cli.data.checks.crash_proof import Lost, run_each
from ccl_cli.data.checks.inspect import Subject
from ccl_cli.errors import EnvironmentError_, Interrupted
from ccl_cli.utils.files import changed_at
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.signals import handled_by

_FORMAT = 1  # raise it when what is found changes its meaning
_TABLE = """
    CREATE TABLE IF NOT EXISTS found
    (kind TEXT, subject TEXT, size INTEGER, mtime INTEGER, value TEXT, PRIMARY KEY (kind, subject))
    WITHOUT ROWID
"""


class Effort(NamedTuple):
    """How hard to try.

    Attributes:
        workers: Processes.
        seconds: Time for one file.
    """

    workers: int
    seconds: float


class Kind(NamedTuple):
    """One kind of examination.

    Attributes:
        name: In the store.
        work: What is done to a subject, in another process.
        restore: From the JSON value that was stored.
        title: Shown while it is done.
    """

    name: str
    work: Callable[[Subject], Any]
    restore: Callable[[Any], Any]
    title: str


LOOK = Kind("look", inspect.look, lambda value: inspect.Finding(*value), "look")
DECODE = Kind("decode", inspect.decode, lambda value: value, "decode")
DIGEST = Kind("digest", inspect.digest, lambda value: value, "compare")


ABSENT = Lost("there is no such file")


class _Job(NamedTuple):
    place: int
    subject: Subject
    stamp: tuple[int, int] | None


def examine(kind: Kind, subjects: Sequence[Subject], effort: Effort) -> Iterator[tuple[int, Any]]:
    """Examine subjects; what is known of a file that has not changed comes from the store.

    What cannot be found out because a process died, hung or was refused by the disk is not kept: the next
    run tries it again.

    Args:
        kind: What to do.
        subjects: Files or stretches of them.
        effort: How hard to try.

    Yields:
        The place of a subject and what was found: :data:`ABSENT`, another :class:`Lost` where nothing could
        be found out, else what ``kind`` gives. First what is known, then in the order of finding.

    Raises:
        Interrupted: stopped by a signal; what was found is kept.
        EnvironmentError_: the store cannot be used.
    """
    came: list[int] = []
    with closing(Store()) as store, handled_by(lambda number, frame: came.append(number)):
        unknown: list[int] = []
        for place, subject in enumerate(subjects):
            stamp = _stamp(subject.path)
            known = store.get(kind, subject, stamp) if stamp else None
            if came:
                break
            if stamp is None:
                yield place, ABSENT
            elif known is None:
                unknown.append(place)
            else:
                yield place, kind.restore(json.loads(known))
        done = len(subjects) - len(unknown)
        with Reporter(kind.title, len(subjects), done, unit="file") as reporter:
            for job, found in _results(kind, unknown, subjects, effort, came):
                if job.stamp and not isinstance(found, Lost):
                    store.put(kind, job.subject, job.stamp, json.dumps(found))
                done += 1
                reporter.advance()
                yield job.place, found
            reporter.line()
    if came:
        raise Interrupted(
            f"Stopped by {signal.Signals(came[0]).name}; what was found out about files is kept.",
            "The same command goes on.",
        )


def _results(
    kind: Kind, unknown: Sequence[int], subjects: Sequence[Subject], effort: Effort, came: Sequence[int]
) -> Iterator[tuple[_Job, Any]]:
    # A file that changes while it is read is another file for the next run: its stamp is taken before.
    jobs = (_Job(place, subjects[place], _stamp(subjects[place].path)) for place in unknown)
    work = partial(_on_subject, kind.work)
    return run_each(jobs, work, workers=effort.workers, seconds=effort.seconds, stopped=lambda: bool(came))


def _on_subject(work: Callable[[Subject], Any], job: _Job) -> Any:
    return work(job.subject)


def _stamp(path: str) -> tuple[int, int] | None:
    """Size and time of change; None for what is no file."""
    try:
        stat = os.stat(path)  # noqa: PTH116  (half the time of Path.stat over 200,000 rows)
    except (OSError, ValueError):  # ValueError: a zero byte in it
        return None
    return stat.st_size, changed_at(stat)


class Store:
    """What is known, in one file of the cache; each finding is safe from the moment it is put.

    It belongs to one version of the decoder: another one may find something else.
    """

    def __init__(self) -> None:
        self.path = cache_dir() / f"findings-{_FORMAT}-{av.__version__}.sqlite"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            # Safe from a kill of this process; what a crash of the machine costs is found again.
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=OFF")
            self._base.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def get(self, kind: Kind, subject: Subject, stamp: tuple[int, int]) -> str | None:
        """The JSON text that was put for this subject, if its file is still the same."""
        query = "SELECT value FROM found WHERE kind = ? AND subject = ? AND size = ? AND mtime = ?"
        try:
            row = self._base.execute(query, (kind.name, _key(subject), *stamp)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return row and str(row[0])

    def put(self, kind: Kind, subject: Subject, stamp: tuple[int, int], value: str) -> None:
        """Keep a JSON text."""
        row = (kind.name, _key(subject), *stamp, value)
        try:
            self._base.execute("INSERT OR REPLACE INTO found VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def _unusable(self, error: Exception) -> EnvironmentError_:
        return EnvironmentError_(
            f"What is known about files cannot be kept in '{self.path}': {error}.",
            "Delete it, or set CCL_HOME to a folder on a local disk.",
        )


def _key(subject: Subject) -> str:
    # A path may hold bytes that are no text.
    path = subject.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if subject.start is None and subject.end is None:
        return path
    return f"{path}\n{subject.start} {subject.end}"
