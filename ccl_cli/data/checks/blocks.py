"""Examination of files by an executor, in blocks of one result file each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import av

from ccl_cli.config.recipe import Executor
from ccl_cli.data.checks.inspect import Subject
from ccl_cli.data.checks.pool import Failure, run_each
from ccl_cli.executors.blocks import DONE, block_folder, run_blocks
from ccl_cli.executors.work import Work
from ccl_cli.utils.files import write_text
from ccl_cli.utils.processes import cores

BLOCK = 1000  # subjects of a block, which is lost when its process is killed


def examine_blocks(
    work: Callable[[Subject], Any],
    jobs: Sequence[tuple[int, Subject]],
    keys: Sequence[str],
    *,
    timeout: float,
    executor: Executor,
    advance: Callable[..., None],
) -> Iterator[tuple[tuple[int, Subject], str | Failure]]:
    """Run :func:`examine_one` on all jobs with an executor, as ``pool.run_each`` does on this machine.

    Args:
        work: Module-level function.
        jobs: Subjects with their numbers.
        keys: Keys of the results in the store.
        timeout: Time limit for one file, seconds.
        executor: Settings of the executor.
        advance: Called with the number of subjects when a block is done.

    Raises:
        CclError: a block failed; the results of the others are kept for the next call.
    """
    function = f"{work.__module__}:{work.__name__}"
    blocks = [jobs[first : first + BLOCK] for first in range(0, len(jobs), BLOCK)]
    contents = [[subject for _, subject in block] for block in blocks]
    shared = {"function": function, "timeout": timeout}
    # Unchanged files have the same keys, so an interrupted check finds its folder again.
    with block_folder("check", av.__version__, keys, timeout) as folder:
        items: dict[str, dict[str, Any]] = {
            f"{number:06}": {**shared, "subjects": subjects, "file": str(folder / f"{number:06}.json")}
            for number, subjects in enumerate(contents)
        }
        mapped = Work("check", folder, f"{__name__}:run", DONE, items, modules=(__name__,))
        sizes = {name: len(item["subjects"]) for name, item in items.items()}
        # One block at a time on each machine, because a block uses all cores.
        run_blocks(mapped, executor.model_copy(update={"jobs": 1}), advance, sizes)
        for item, block in zip(items.values(), blocks, strict=True):
            results = json.loads(Path(item["file"]).read_text(encoding="utf-8"))
            for job, (value, failure) in zip(block, results, strict=True):
                yield job, value if failure is None else Failure(failure)


def examine_one(work: Callable[[Subject], Any], job: tuple[int, Subject]) -> str:
    """Call a function on a subject; return its result as JSON."""
    return json.dumps(work(job[1]))


def run(item: Mapping[str, Any]) -> None:
    """Examine one block on all cores of this machine."""
    subjects = [Subject(*subject) for subject in item["subjects"]]
    work = partial(examine_one, resolve_name(item["function"]))
    results: list[tuple[str | None, str | None]] = [(None, None)] * len(subjects)
    for (index, _), result in run_each(enumerate(subjects), work, workers=cores(), timeout=item["timeout"]):
        results[index] = (None, result.reason) if isinstance(result, Failure) else (result, None)
    write_text(Path(item["file"]), json.dumps(results))
