"""Examination of files with stored results, from which the next call continues."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av

from ccl_cli.config.recipe import Executor
from ccl_cli.data.checks.blocks import examine_blocks, examine_one
from ccl_cli.data.checks.inspect import Subject
from ccl_cli.data.checks.pool import Failure, run_each
from ccl_cli.errors import Interrupted, SystemSetupError
from ccl_cli.executors.part import WHOLE, Part
from ccl_cli.utils.files import changed_at
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.signals import handled_by

_FORMAT = 2  # raise it when the meaning of a stored value changes
_CREATE = "CREATE TABLE IF NOT EXISTS {} (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"


class Effort(NamedTuple):
    """Resources for the examination.

    Attributes:
        workers: Number of processes.
        timeout: Time limit for one file, seconds.
        executor: Settings of the executor.
        part: Part of the files that the caller examines. A part has a store of its own, because processes
            of several machines must not write to one SQLite file.
    """

    workers: int
    timeout: float
    executor: Executor = Executor()
    part: Part = WHOLE


ABSENT = Failure("there is no such file")


def examine(
    work: Callable[[Subject], Any], subjects: Sequence[Subject], effort: Effort
) -> Iterator[tuple[int, Any]]:
    """Examine subjects. Results for unchanged files are read from the store.

    A failure (a process died or took too long, the file could not be read) is not stored, so the next call
    tries again.

    Args:
        work: Module-level function, called in other processes. Its name is part of the key in the store.
        subjects: Files or segments of files.
        effort: Resources.

    Yields:
        The index of a subject and its result: :data:`ABSENT`, another :class:`Failure`, or the JSON value of
        ``work``. Stored results come first, the others in order of completion.

    Raises:
        Interrupted: stopped by a signal; the results so far are stored.
        SystemSetupError: the store cannot be used.
        CclError: the executor failed on some subjects; finished blocks are kept for the next call.
    """
    signals: list[int] = []
    with _store(effort.part) as store, handled_by(lambda number, frame: signals.append(number)):
        pending: dict[int, str] = {}
        for index, subject in enumerate(subjects):
            key = _key(work, subject)
            value = key and store.execute("SELECT value FROM findings WHERE key = ?", (key,)).fetchone()
            if signals:
                break
            if key is None:
                yield index, ABSENT
            elif value:
                yield index, json.loads(value[0])
            else:
                pending[index] = key
        with Reporter(work.__name__, len(subjects), len(subjects) - len(pending), unit="file") as reporter:
            jobs = [(index, subjects[index]) for index in pending]
            local = effort.executor.name == "local"
            keys = list(pending.values())
            for (index, _), result in _results(work, jobs, keys, effort, reporter, lambda: bool(signals)):
                if not isinstance(result, Failure):
                    store.execute("INSERT OR REPLACE INTO findings VALUES (?, ?)", (pending[index], result))
                reporter.advance(int(local))  # blocks of an executor are counted already
                yield index, result if isinstance(result, Failure) else json.loads(result)
            reporter.line()
    if signals:
        raise Interrupted(
            f"Stopped by {signal.Signals(signals[0]).name}; the results so far are stored.",
            "Run the same command again to continue.",
        )


def _results(
    work: Callable[[Subject], Any],
    jobs: Sequence[tuple[int, Subject]],
    keys: Sequence[str],
    effort: Effort,
    reporter: Reporter,
    stopped: Callable[[], bool],
) -> Iterator[tuple[tuple[int, Subject], str | Failure]]:
    if effort.executor.name != "local":
        return examine_blocks(
            work, jobs, keys, timeout=effort.timeout, executor=effort.executor, advance=reporter.advance
        )
    examined = partial(examine_one, work)
    return run_each(jobs, examined, workers=effort.workers, timeout=effort.timeout, stopped=stopped)


def _key(work: Callable[[Subject], Any], subject: Subject) -> str | None:
    """Primary key of a result; a changed file has another key. None without a file."""
    try:
        stat = os.stat(subject.path)  # noqa: PTH116  (half the time of Path.stat over 200,000 rows)
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return None
    return json.dumps([work.__name__, *subject, stat.st_size, changed_at(stat)])


@contextmanager
def _store(part: Part) -> Iterator[sqlite3.Connection]:
    """The table of results: one file per decoder version, since another version may give other results."""
    name = f"findings-{_FORMAT}-{av.__version__}"
    path = cache_dir() / f"{name}{'' if part == WHOLE else f'-part-{part.number}-{part.parts}'}.sqlite"
    with suppress(OSError):  # SQLite reports it
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as store:
            # Only a crash of the machine may lose a row; the file is then examined again.
            store.execute("PRAGMA synchronous=OFF")
            store.execute(_CREATE.format("findings"))
            if part == WHOLE:
                for other in path.parent.glob(f"{name}-part-*.sqlite"):
                    _move_rows(other, store)
            yield store
    except sqlite3.Error as error:
        raise SystemSetupError(
            f"Results cannot be stored in '{path}': {error}.",
            "Delete it, or set CCL_HOME to a folder on a local disk.",
        ) from error


def _move_rows(source: Path, store: sqlite3.Connection) -> None:
    """Move the results of a part to the store of all."""
    store.execute("ATTACH ? AS part", (str(source),))
    store.execute(_CREATE.format("part.findings"))  # a process may have been killed before it did so
    store.execute("INSERT OR IGNORE INTO findings SELECT * FROM part.findings")
    store.execute("DETACH part")
    source.unlink(missing_ok=True)
