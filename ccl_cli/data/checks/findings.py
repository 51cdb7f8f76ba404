"""Examination of files with stored results, from which the next call continues."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple
from uuid import uuid4

import av

from ccl_cli.config.recipe import Executor
from ccl_cli.data.checks.inspect import Subject
from ccl_cli.data.checks.pool import Failure, run_each
from ccl_cli.executors.blocks import DONE, block_folder, run_blocks
from ccl_cli.executors.work import Work
from ccl_cli.utils.files import write_text
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.processes import cores
from ccl_cli.utils.progress import Reporter

# Another decoder may give other results. Raise the number when a stored value changes its meaning.
_STORE = f"findings-3-{av.__version__}"
BLOCK = 1000  # subjects of an executor's item
NO_FILE = Failure("there is no such file")


class Effort(NamedTuple):
    """Resources for the examination.

    Attributes:
        workers: Number of processes.
        timeout: Time limit for one file, seconds.
        executor: Settings of the executor.
    """

    workers: int
    timeout: float
    executor: Executor = Executor()


def examine(
    work: Callable[[Subject], Any], subjects: Sequence[Subject], effort: Effort
) -> Iterator[tuple[int, Any]]:
    """Examine subjects. Results for unchanged files are read from the store.

    Each result is stored at once, so the call may be stopped or killed at any moment. A failure (a process
    died or took too long, the file could not be read) is not stored, so the next call tries again.

    Args:
        work: Module-level function, called in other processes. Its name is part of the key in the store.
        subjects: Files or segments of files.
        effort: Resources.

    Yields:
        The index of a subject and its result: :data:`NO_FILE`, another :class:`Failure`, or the JSON value of
        ``work``. Stored results come first, the others in order of completion.

    Raises:
        OSError: the store cannot be written.
        CclError: the executor failed on some subjects; the results of the others are stored.
    """
    stored, keys = _stored(), [_key(work, subject) for subject in subjects]
    if effort.executor.name != "local" and not stored.keys() >= {*filter(None, keys)}:
        _examine_in_blocks(work, subjects, keys, effort)
        stored = _stored()  # of what failed there, nothing: it is tried again on this machine
    jobs: dict[int, str] = {}
    for index, key in enumerate(keys):
        if key is None:
            yield index, NO_FILE
        elif key in stored:
            yield index, json.loads(stored[key])
        else:
            jobs[index] = key
    if not jobs:
        return
    store = cache_dir() / f"{_STORE}-{uuid4().hex}.jsonl"
    store.parent.mkdir(parents=True, exist_ok=True)
    reporter = Reporter(work.__name__, len(subjects), len(subjects) - len(jobs), unit="file")
    queue, task = [(index, subjects[index]) for index in jobs], partial(_as_json, work)
    with store.open("x", buffering=1) as file, reporter:
        for (index, _), result in run_each(queue, task, workers=effort.workers, timeout=effort.timeout):
            reporter.advance()
            if isinstance(result, str):
                file.write(f"{jobs[index]}\t{result}\n")
            yield index, json.loads(result) if isinstance(result, str) else result
        reporter.line()


def _stored() -> dict[str, str]:
    """Results by key, both as JSON, from the files of all processes that have examined something."""
    results: dict[str, str] = {}
    for path in cache_dir().glob(f"{_STORE}-*.jsonl"):
        with path.open(errors="replace") as file:
            for line in file:
                key, _, result = line.partition("\t")
                if result.endswith("\n"):  # the last line of a killed process may be cut off
                    results[key] = result
    return results


def _key(work: Callable[[Subject], Any], subject: Subject) -> str | None:
    """Key of a result; a changed file has another key. None without a file."""
    try:
        stat = os.stat(subject.path)  # noqa: PTH116  (half the time of Path.stat over 200,000 rows)
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return None
    return json.dumps([work.__name__, *subject, stat.st_size, stat.st_mtime_ns])


def _as_json(work: Callable[[Subject], Any], job: tuple[int, Subject]) -> str:
    return json.dumps(work(job[1]))


def _examine_in_blocks(
    work: Callable[[Subject], Any], subjects: Sequence[Subject], keys: Sequence[str | None], effort: Effort
) -> None:
    """Let an executor examine blocks of subjects, which fills the store."""
    shared = {"function": f"{work.__module__}:{work.__name__}", "timeout": effort.timeout}
    blocks = {f"{start:06}": subjects[start : start + BLOCK] for start in range(0, len(subjects), BLOCK)}
    # Unchanged files have the same keys, so an interrupted check finds its folder again.
    with (
        block_folder("check", av.__version__, keys, effort.timeout) as folder,
        Reporter(work.__name__, len(subjects), unit="file") as reporter,
    ):
        items = {
            name: {**shared, "subjects": block, "file": str(folder / f"{name}.done")}
            for name, block in blocks.items()
        }
        mapped = Work("check", folder, f"{__name__}:run_block", DONE, items, modules=(__name__,))
        # One block at a time on each machine, because a block uses all cores.
        settings = effort.executor.model_copy(update={"jobs": 1})
        sizes = {name: len(block) for name, block in blocks.items()}
        run_blocks(mapped, settings, reporter.advance, sizes)


def run_block(item: Mapping[str, Any]) -> None:
    """Examine one block on all cores of this machine."""
    subjects = [Subject(*subject) for subject in item["subjects"]]
    list(examine(resolve_name(item["function"]), subjects, Effort(cores(), item["timeout"])))
    write_text(Path(item["file"]), "")
