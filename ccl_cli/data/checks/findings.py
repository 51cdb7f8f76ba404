"""Results of inspecting files, stored one by one: the next run, or another command, goes on from there."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import av

from ccl_cli.data.checks import inspect
from ccl_cli.data.checks.inspect import Inspection, Subject
from ccl_cli.data.checks.pool import Failure, run_each
from ccl_cli.errors import EnvironmentError_, Interrupted
from ccl_cli.utils.files import changed_at
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.signals import handled_by

_FORMAT = 2  # raise it when the meaning of a stored value changes


class Effort(NamedTuple):
    """Resources for the examination.

    Attributes:
        workers: Processes.
        timeout: Seconds for one file.
    """

    workers: int
    timeout: float


class Kind(NamedTuple):
    """One kind of examination.

    Attributes:
        name: In the store.
        work: Called with a subject, in another process.
        restore: Makes the result of its stored JSON value.
    """

    name: str
    work: Callable[[Subject], Any]
    restore: Callable[[Any], Any]


INSPECT = Kind("inspect", inspect.inspect_video, lambda value: Inspection(*value))
DECODE = Kind("decode", inspect.decode, lambda value: value)
DIGEST = Kind("compare", inspect.digest, lambda value: value)

ABSENT = Failure("there is no such file")


def examine(kind: Kind, subjects: Sequence[Subject], effort: Effort) -> Iterator[tuple[int, Any]]:
    """Examine subjects; results for files that have not changed since come from the store.

    A failure (a process died or took too long, the disk refused) is not stored: the next run tries again.

    Args:
        kind: What to do.
        subjects: Files or stretches of them.
        effort: Resources.

    Yields:
        The index of a subject and its result: :data:`ABSENT`, another :class:`Failure`, else what ``kind``
        gives. Stored results come first, the others as they are ready.

    Raises:
        Interrupted: stopped by a signal; the results so far are stored.
        EnvironmentError_: the store cannot be used.
    """
    signals: list[int] = []
    with _store() as store, handled_by(lambda number, frame: signals.append(number)):
        pending: dict[int, str] = {}
        for index, subject in enumerate(subjects):
            key = _key(kind, subject)
            value = key and store.execute("SELECT value FROM findings WHERE key = ?", (key,)).fetchone()
            if signals:
                break
            if key is None:
                yield index, ABSENT
            elif value:
                yield index, kind.restore(json.loads(value[0]))
            else:
                pending[index] = key
        with Reporter(kind.name, len(subjects), len(subjects) - len(pending), unit="file") as reporter:
            jobs = ((index, subjects[index]) for index in pending)
            work = partial(_examine_one, kind.work)
            for (index, _), result in run_each(jobs, work, **effort._asdict(), stopped=lambda: bool(signals)):
                if not isinstance(result, Failure):
                    store.execute(
                        "INSERT OR REPLACE INTO findings VALUES (?, ?)", (pending[index], json.dumps(result))
                    )
                reporter.advance()
                yield index, result
            reporter.line()
    if signals:
        raise Interrupted(
            f"Stopped by {signal.Signals(signals[0]).name}; the results so far are stored.",
            "The same command goes on.",
        )


def _examine_one(work: Callable[[Subject], Any], job: tuple[int, Subject]) -> Any:
    return work(job[1])


def _key(kind: Kind, subject: Subject) -> str | None:
    """The primary key of a result: a file that changes has another one. None where there is no file."""
    try:
        stat = os.stat(subject.path)  # noqa: PTH116  (half the time of Path.stat over 200,000 rows)
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return None
    return json.dumps([kind.name, *subject, stat.st_size, changed_at(stat)])


@contextmanager
def _store() -> Iterator[sqlite3.Connection]:
    """The table of results: one file per decoder version, since another version may give other results."""
    path = cache_dir() / f"findings-{_FORMAT}-{av.__version__}.sqlite"
    with suppress(OSError):  # SQLite says so too
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as store:
            # A kill loses no row; a crash of the machine may, and the file is then examined again.
            store.execute("PRAGMA synchronous=OFF")
            store.execute(
                "CREATE TABLE IF NOT EXISTS findings (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"
            )
            yield store
    except sqlite3.Error as error:
        raise EnvironmentError_(
            f"Results cannot be stored in '{path}': {error}.",
            "Delete it, or set CCL_HOME to a folder on a local disk.",
        ) from error
