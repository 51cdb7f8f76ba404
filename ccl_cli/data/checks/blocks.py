"""Files that an executor examines: a block of them is an item, and leaves one file of results."""

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
from ccl_cli.executors.blocks import DONE, block_folder, map_blocks, refuse_unfinished
from ccl_cli.executors.work import Work
from ccl_cli.utils.files import write_text
from ccl_cli.utils.processes import cores

BLOCK = 1000  # subjects that are examined together: what a kill can cost


def examine_blocks(
    work: Callable[[Subject], Any],
    jobs: Sequence[tuple[int, Subject]],
    keys: Sequence[str],
    *,
    timeout: float,
    executor: Executor,
    advance: Callable[..., None],
) -> Iterator[tuple[tuple[int, Subject], str | Failure]]:
    """:func:`ccl_cli.data.checks.pool.run_each` of :func:`examine_one`, block by block elsewhere.

    Args:
        work: A module-level function.
        jobs: Subjects by number.
        keys: What the result of each depends on.
        timeout: Seconds for one file.
        executor: Who examines.
        advance: Is called with a number of subjects when a block has ended.

    Raises:
        CclError: a block could not be examined; the others have been.
    """
    function = f"{work.__module__}:{work.__name__}"
    blocks = [jobs[first : first + BLOCK] for first in range(0, len(jobs), BLOCK)]
    contents = [[subject for _, subject in block] for block in blocks]
    shared = {"function": function, "timeout": timeout}
    # The same files are found again in the same place; one that has changed since has another key.
    with block_folder("check", av.__version__, keys, timeout) as folder:
        items: dict[str, dict[str, Any]] = {
            f"{number:06}": {**shared, "subjects": subjects, "file": str(folder / f"{number:06}.json")}
            for number, subjects in enumerate(contents)
        }
        mapped = Work("check", folder, f"{__name__}:run", DONE, items, modules=(__name__,))
        sizes = {name: len(item["subjects"]) for name, item in items.items()}
        # One block at once on a machine: it takes all cores.
        reasons = map_blocks(mapped, executor.model_copy(update={"jobs": 1}), advance, sizes)
        for (name, item), block in zip(items.items(), blocks, strict=True):
            if name not in reasons:
                results = json.loads(Path(item["file"]).read_text(encoding="utf-8"))
                for job, (value, failure) in zip(block, results, strict=True):
                    yield job, value if failure is None else Failure(failure)
        refuse_unfinished(mapped, reasons)


def examine_one(work: Callable[[Subject], Any], job: tuple[int, Subject]) -> str:
    """What a function finds of a subject, as JSON."""
    return json.dumps(work(job[1]))


def run(item: Mapping[str, Any]) -> None:
    """Examine one block on all cores of this machine."""
    subjects = [Subject(*subject) for subject in item["subjects"]]
    work = partial(examine_one, resolve_name(item["function"]))
    results: list[tuple[str | None, str | None]] = [(None, None)] * len(subjects)
    for (index, _), result in run_each(enumerate(subjects), work, workers=cores(), timeout=item["timeout"]):
        results[index] = (None, result.reason) if isinstance(result, Failure) else (result, None)
    write_text(Path(item["file"]), json.dumps(results))
