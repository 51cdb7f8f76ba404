"""Files that an executor examines: a block of them is an item, and leaves one file of results."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import av

from ccl_cli.config.recipe import Executor
from ccl_cli.data.checks.inspect import Subject
from ccl_cli.data.checks.pool import Failure, run_each
from ccl_cli.errors import CclError, SystemSetupError
from ccl_cli.executors import map_items
from ccl_cli.executors.work import Work
from ccl_cli.utils.files import write_text
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.processes import cores

BLOCK = 1000  # subjects that are examined together: what a kill can cost


def examine_blocks(
    work: Callable[[Subject], Any],
    jobs: Sequence[tuple[int, Subject]],
    keys: Sequence[str],
    *,
    timeout: float,
    executor: Executor,
    advance: Callable[[int], None],
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
    # The same files are found again in the same place; one that has changed since has another key.
    digest = hashlib.sha256(json.dumps([av.__version__, keys, timeout]).encode()).hexdigest()[:16]
    folder = (cache_dir() / "findings" / digest).absolute()
    shared = {"function": function, "timeout": timeout}
    items: dict[str, dict[str, Any]] = {
        f"{number:06}": {**shared, "subjects": subjects, "file": str(folder / f"{number:06}.json")}
        for number, subjects in enumerate(contents)
    }
    own = __name__
    whole = Work("check", folder, f"{own}:run", f"{own}:done", items, modules=(own,))
    # One block at once on a machine: it takes all cores.
    sizes = {name: len(item["subjects"]) for name, item in items.items()}
    advance(sum(size for name, size in sizes.items() if whole.is_done(name)))
    reasons = map_items(whole, executor.model_copy(update={"jobs": 1}), _Progress(sizes, advance))
    for (name, item), block in zip(items.items(), blocks, strict=True):
        if name not in reasons:
            for job, (value, failure) in zip(block, _results(Path(item["file"])), strict=True):
                yield job, value if failure is None else Failure(failure)
    for name, why in reasons.items():
        raise CclError(
            f"{len(reasons)} of {len(blocks)} blocks of files were not examined, such as {name}: {why}",
            f"The results of the others are stored; the same command tries these again. Logs: '{folder}'.",
        )
    shutil.rmtree(folder, ignore_errors=True)  # all of it is stored by now


def _results(path: Path) -> list[tuple[str, str | None]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except FileNotFoundError as error:
        raise SystemSetupError(
            "Another process has examined these files meanwhile.", "Give the same command again."
        ) from error


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


def done(item: Mapping[str, Any]) -> bool:
    """Whether a block's results are there."""
    return Path(item["file"]).is_file()


class _Progress:
    def __init__(self, sizes: Mapping[str, int], advance: Callable[[int], None]) -> None:
        self.sizes, self.advance = sizes, advance

    def began(self, name: str, place: str) -> None:
        pass

    def ended(self, name: str) -> None:
        self.advance(self.sizes[name])
