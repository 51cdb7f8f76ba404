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
from ccl_cli.executors.blocks import DONE, block_folder, map_blocks, refuse_unfinished
from ccl_cli.executors.work import Work
from ccl_cli.utils.files import write_text
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.processes import cores
from ccl_cli.utils.progress import Reporter

# Another decoder may give other results. Raise the number when a stored value changes its meaning.
_STORE = f"findings-3-{av.__version__}"
BLOCK = 1000  # subjects of an executor's item, which are lost when its process is killed
ABSENT = Failure("there is no such file")
Job = tuple[int, Subject]  # with its index


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
        The index of a subject and its result: :data:`ABSENT`, another :class:`Failure`, or the JSON value of
        ``work``. Stored results come first, the others in order of completion.

    Raises:
        OSError: the store cannot be written.
        CclError: the executor failed on some subjects; the results of the others are stored.
    """
    stored, keys = _stored(), dict[int, str]()
    for index, subject in enumerate(subjects):
        key = _key(work, subject)
        if key is None:
            yield index, ABSENT
        elif key in stored:
            yield index, json.loads(stored[key])
        else:
            keys[index] = key
    if not keys:
        return
    jobs = [(index, subjects[index]) for index in keys]
    local, task = effort.executor.name == "local", partial(_as_json, work)
    store = cache_dir() / f"{_STORE}-{uuid4().hex}.jsonl"
    store.parent.mkdir(parents=True, exist_ok=True)
    reporter = Reporter(work.__name__, len(subjects), len(subjects) - len(keys), unit="file")
    with store.open("x", buffering=1) as file, reporter:
        if local:
            results = run_each(jobs, task, workers=effort.workers, timeout=effort.timeout)
        else:
            results = _in_blocks(work, jobs, list(keys.values()), effort, reporter.advance)
        for (index, _), result in results:
            reporter.advance(int(local))  # blocks are counted already
            if isinstance(result, str):
                file.write(f"{keys[index]}\t{result}\n")
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


def _in_blocks(
    work: Callable[[Subject], Any],
    jobs: Sequence[Job],
    keys: Sequence[str],
    effort: Effort,
    advance: Callable[..., None],
) -> Iterator[tuple[Job, str | Failure]]:
    """Run blocks of jobs with the executor. Each block leaves a file of results."""
    shared = {"function": f"{work.__module__}:{work.__name__}", "timeout": effort.timeout}
    blocks = {f"{start:06}": jobs[start : start + BLOCK] for start in range(0, len(jobs), BLOCK)}
    # Unchanged files have the same keys, so an interrupted check finds its folder again.
    with block_folder("check", av.__version__, keys, effort.timeout) as folder:
        items = {
            name: {**shared, "jobs": block, "file": str(folder / f"{name}.json")}
            for name, block in blocks.items()
        }
        mapped = Work("check", folder, f"{__name__}:run_block", DONE, items, modules=(__name__,))
        # One block at a time on each machine, because a block uses all cores.
        settings = effort.executor.model_copy(update={"jobs": 1})
        reasons = map_blocks(mapped, settings, advance, {name: len(block) for name, block in blocks.items()})
        for name in blocks.keys() - reasons.keys():
            for job, result in json.loads((folder / f"{name}.json").read_text(encoding="utf-8")):
                yield job, result if isinstance(result, str) else Failure(*result)
        refuse_unfinished(mapped, reasons)


def run_block(item: Mapping[str, Any]) -> None:
    """Examine one block on all cores of this machine."""
    task = partial(_as_json, resolve_name(item["function"]))
    jobs = [(index, Subject(*subject)) for index, subject in item["jobs"]]
    results = list(run_each(jobs, task, workers=cores(), timeout=item["timeout"]))
    write_text(Path(item["file"]), json.dumps(results))


def _as_json(work: Callable[[Subject], Any], job: Job) -> str:
    return json.dumps(work(job[1]))
