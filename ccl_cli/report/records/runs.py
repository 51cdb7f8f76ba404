"""Run folders: which count, and the pandas frame of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ccl_cli.errors import DataError, UsageError
from ccl_cli.report.records.run import Run, abbreviations, modalities_of, read_run
from ccl_cli.training.run.folder import CELL, RECIPE, SUMMARY, read_json, run_paths
from ccl_cli.utils.paths import runs_dir
from ccl_cli.utils.sentences import check_known, listed
from ccl_cli.utils.text import one_line

if TYPE_CHECKING:
    from pandas import DataFrame

_DEPTH = 3


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of some folders.

    Attributes:
        evaluated: Runs with metrics, oldest first.
        failed: Runs that failed before their evaluation; NaN for each metric of the runs beside them.
        notes: Remarks for the reader, one sentence each.
    """

    evaluated: tuple[Run, ...]
    failed: tuple[Run, ...]
    notes: tuple[str, ...]

    @property
    def all(self) -> tuple[Run, ...]:
        """Evaluated and failed runs."""
        return (*self.evaluated, *self.failed)

    @property
    def frame(self) -> DataFrame:
        """Frame of :func:`runs`."""
        from pandas import DataFrame

        return DataFrame([_row(run, *key, value) for run in self.all for key, value in run.metrics.items()])

    def of_two(self, first: str, second: str) -> Runs:
        """Select the runs of two methods, so that problems of other methods do not matter.

        Raises:
            UsageError: a method has no run, or both names are the same.
        """
        for method in (first, second):
            check_known("method", method, [run.method for run in self.all])
        if first == second:
            raise UsageError(f"'{first}' is compared with itself.", "Name two methods.")
        evaluated, failed = (
            tuple(run for run in some if run.method in (first, second))
            for some in (self.evaluated, self.failed)
        )
        return Runs(evaluated, failed, self.notes)


def runs(*folders: Path | str, split: str = "test") -> DataFrame:
    """Read results of runs: one row for each run, data set and metric.

    Columns: ``data``, ``method``, ``setup``, ``metric``, ``seed``, ``value`` in percent (missing for a failed
    run), ``error``, ``ablation``, ``settings`` (hash of the recipe without seed and name),
    ``recipe`` (hash of the recipe), ``manifest`` (hash of the evaluated videos) and ``folder``.

    Args:
        folders: Run folders, or folders of runs. Default: the newest folder that contains an evaluated run.
        split: Split whose evaluation is read: "test" or "val".

    Raises:
        DataError: a folder does not exist, or none of the runs has been evaluated.
    """
    return read_runs([Path(folder) for folder in folders], split).frame


def read_runs(paths: Sequence[Path] = (), split: str = "test") -> Runs:
    """Read run folders, or all runs in a folder of runs; arguments and errors as in :func:`runs`."""
    folders: dict[Path, Path] = {}
    for folder in chain.from_iterable(map(_expand, paths)) if paths else _newest():
        folders.setdefault(folder.resolve(), folder)
    short = abbreviations(
        chain.from_iterable(modalities_of(read_json(f / SUMMARY)) for f in folders.values())
    )
    read: list[Run] = []
    omitted: dict[str, list[str]] = defaultdict(list)
    for folder in folders.values():
        if read_json(folder / CELL).get("phase") == "tune":
            continue
        run = read_run(folder, split, short)
        if isinstance(run, Run):
            read.append(run)
        else:
            omitted[run].append(str(folder))
    notes = [one_line(f"Left out, {reason}: {listed(names)}.") for reason, names in omitted.items()]
    evaluated = sorted((run for run in read if run.error is None), key=lambda run: run.written)
    if not evaluated:
        where = ", ".join(f"'{path}'" for path in paths) or f"'{runs_dir()}'"
        option = "" if split == "test" else f" --split {split}"
        raise DataError(
            f"No evaluated run in {where}.", "\n  ".join([*notes, f"Evaluate with `ccl eval RUN{option}`."])
        )
    evaluated, repeats = _newest_of_repeats(evaluated)
    succeeded = {(run.method, run.setup, run.seed) for run in evaluated}
    failed = [
        _failed_beside(run, evaluated)
        for run in read
        if run.error and (run.method, run.setup, run.seed) not in succeeded
    ]
    return Runs(tuple(evaluated), tuple(failed), (*notes, *map(one_line, repeats)))


def _newest() -> list[Path]:
    """Return the newest evaluated run, with all runs in its folder."""
    folders = run_paths(SUMMARY)
    for folder in sorted(folders, key=lambda folder: (folder / SUMMARY).stat().st_mtime_ns, reverse=True):
        if read_json(folder / SUMMARY).get("evaluation"):
            root = folder.parent
            # Beside runs/NAME are the folders of other experiments, which do not belong to it.
            return list(_runs_in(root, 1)) if root == runs_dir() else _expand(root)
    raise DataError(f"There is no evaluated run under '{runs_dir()}'.", "Evaluate one with `ccl eval`.")


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        raise DataError(f"There is no folder '{path}'.", f"The runs are under '{runs_dir()}'.")
    folders = list(_runs_in(path, _DEPTH))
    if not folders:
        raise DataError(f"'{path}' holds no runs.", f"The runs are under '{runs_dir()}'.")
    return folders


def _runs_in(folder: Path, depth: int) -> Iterator[Path]:
    if any((folder / name).is_file() for name in (RECIPE, CELL)):
        yield folder
    elif depth:
        for below in sorted(path for path in folder.iterdir() if path.is_dir()):
            yield from _runs_in(below, depth - 1)


def _failed_beside(run: Run, evaluated: Sequence[Run]) -> Run:
    """Add NaN for the metrics of the runs in the same folder, because a failed run records no data set."""
    beside = [other for other in evaluated if other.folder.parent == run.folder.parent] or evaluated
    keys = dict.fromkeys(key for other in beside for key in other.metrics)
    return replace(run, metrics=dict.fromkeys(keys, math.nan))


def _row(run: Run, data: str, metric: str, value: float) -> dict[str, object]:
    return {
        "data": data,
        "method": run.method,
        "setup": run.setup,
        "metric": metric,
        "seed": run.seed,
        "value": value,
        "error": run.error or "",
        "ablation": run.ablation,
        "settings": run.settings,
        "recipe": run.hash,
        "manifest": run.manifests.get(data, ""),
        "folder": str(run.folder),
    }


def _newest_of_repeats(evaluated: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Keep the newest of repeated runs on each data set; return runs and one note per repetition."""
    repeated: dict[tuple[str, str, str, int, str], list[Run]] = defaultdict(list)
    for run in evaluated:
        for data in run.manifests:
            repeated[data, run.method, run.setup, run.seed, run.settings].append(run)
    newest = {(key[0], same[-1].folder) for key, same in repeated.items()}
    kept = [
        replace(
            run, metrics={key: each for key, each in run.metrics.items() if (key[0], run.folder) in newest}
        )
        for run in evaluated
    ]
    notes = [
        f"{run.label}, seed {run.seed}, was run {len(older) + 1} times with one recipe: on {data} the newest "
        f"counts, {run.folder}; not {listed([each.folder for each in older])}."
        for (data, *_), (*older, run) in repeated.items()
        if older
    ]
    return [run for run in kept if run.metrics], notes
