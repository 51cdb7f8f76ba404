"""Run a benchmark; finished cells are never run again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from ccl_cli import registry
from ccl_cli.bench import cell as of_cell
from ccl_cli.bench.cell import figures
from ccl_cli.bench.matrix import Cell, Factors, final_cells, section, tune_cells
from ccl_cli.config.recipe import Executor, Recipe
from ccl_cli.config.spec import parse_data, parse_model
from ccl_cli.data.sources import load_data
from ccl_cli.data.sources.generated import GENERATED
from ccl_cli.errors import CclError, DataError, UsageError, WeightsError
from ccl_cli.executors import map_items
from ccl_cli.executors.part import WHOLE, Part
from ccl_cli.executors.work import Work, has_failed
from ccl_cli.training.build import load_teacher, training_data
from ccl_cli.training.run.folder import RunFolder
from ccl_cli.utils.paths import runs_dir
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.sentences import bundled

# Mean top-1 by factor, for each row and column.
Scores = Mapping[tuple[str, str], Mapping[float, float]]
_Data = tuple[str | None, float]  # name of the data set, and the fraction of its training split held out
_log = logging.getLogger("ccl")


class Outcome(NamedTuple):
    """Folders of all cells of the tables, and of all failed runs including tuning runs."""

    folders: list[Path]
    failed: list[Path]


def run_bench(recipe: Recipe, *, part: Part = WHOLE) -> Outcome:
    """Run every unfinished cell; first tune the loss weights if the recipe requires it.

    Several processes may run the same benchmark, also on machines with a shared disk; they share the cells.

    Args:
        recipe: Recipe with a benchmark; its ``executor`` section selects the executor.
        part: Part of the cells to run. All tuning runs must finish before the other runs can start.

    Returns:
        All cells of the tables, and the failed runs of this part.

    Raises:
        Interrupted: stopped by a signal.
        UsageError: the data has changed since cells finished, or tuning runs of other parts are unfinished.
        MultipleErrors: data sets or published weights are missing; a single error is raised as itself.
        SystemSetupError: the executor is unavailable.
    """
    if errors := missing(recipe):
        raise bundled(errors)
    root, tuning = folder_of(recipe), tuning_cells(recipe)
    hashes: dict[_Data, str] = {}
    _check_data(root, [*tuning, *final_cells(recipe, {})], hashes)
    failed: list[Cell] = []
    factors: Factors = {}
    if tuning:
        failed += _run("tune", root, part.of(tuning), recipe.executor)
        # Failed runs count as finished, also those of other parts.
        left = [cell for cell in unfinished(root, tuning) if not has_failed(root / cell.folder)]
        if part != WHOLE and left:
            raise UsageError(
                f"{len(left)} tuning runs are not finished, such as '{left[0].label}'.",
                "Wait for the other parts, then run the same command again.",
            )
        factors = choose(root, tuning)
    cells = final_cells(recipe, factors)
    _check_data(root, cells, hashes)
    failed += _run("bench", root, part.of(cells), recipe.executor)
    return Outcome([root / cell.folder for cell in cells], [root / cell.folder for cell in failed])


class PlannedRun(NamedTuple):
    """A run: its label, its state ("finished" or "to do"), and the name of its folder."""

    run: str
    state: str
    folder: str


def planned_runs(recipe: Recipe) -> tuple[list[PlannedRun], bool]:
    """List the runs of a benchmark.

    Returns:
        The runs, and whether tuning must run first; the runs of the tables then have the recipe's weights.
    """
    root, tuning = folder_of(recipe), tuning_cells(recipe)
    to_tune = bool(unfinished(root, tuning))
    cells = tuning + final_cells(recipe, {} if to_tune else best(scores(root, tuning)))
    todo = {cell.folder for cell in unfinished(root, cells)}
    states = {True: "to do", False: "finished"}
    return [PlannedRun(cell.label, states[cell.folder in todo], cell.folder) for cell in cells], to_tune


def tuning_cells(recipe: Recipe) -> list[Cell]:
    """Return the tuning runs; none if the benchmark has no tuning."""
    tune = section(recipe).tune
    if tune is None:
        return []
    return tune_cells(recipe, hold_out=not load_data(tune.data or recipe.data).split("val"))


def missing(recipe: Recipe) -> list[CclError]:
    """Return the errors of missing data sets and teachers' weights, which would fail every unfinished cell.

    Other errors concern only some cells, which report them.
    """
    cells, tune = final_cells(recipe, {}), section(recipe).tune
    data = [tune.data] if tune and tune.data else []
    data += [cell.recipe.data for cell in cells if cell.recipe.data]
    todo = unfinished(folder_of(recipe), cells)
    teachers = dict.fromkeys(text for cell in todo for text in cell.recipe.teachers)
    names = [name for name in dict.fromkeys(data) if parse_data(name).kind not in GENERATED]
    checks: list[Callable[[], object]] = [partial(load_data, name) for name in names]
    checks += [partial(load_teacher, name) for name in teachers]
    errors: list[CclError] = []
    for check in checks:
        try:
            check()
        except (DataError, WeightsError) as error:
            errors.append(error)
        except CclError:
            continue
    return errors


def folder_of(recipe: Recipe) -> Path:
    """Return the folder of a benchmark's runs."""
    section(recipe)
    return runs_dir() / recipe.name


def unfinished(root: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells without results."""
    return [cell for cell in cells if figures(cell, root / cell.folder) is None]


def choose(root: Path, cells: Sequence[Cell]) -> Factors:
    """Return the best factor of each row and column, where all seeds of a factor have results."""
    tried = scores(root, cells)
    chosen = best(tried)
    for (method, setup), row in tried.items():
        if factor := chosen.get((method, setup)):
            _log.info("%s %s: weight x%g (val top-1 %.1f)", method, setup, factor, row[factor])
        else:
            _log.warning(
                "%s %s: no factor has results of all seeds; the recipe's weight is used.", method, setup
            )
    return chosen


def scores(root: Path, cells: Sequence[Cell]) -> Scores:
    """Mean top-1 on the held-out videos by factor, for factors with results of all seeds."""
    tried: dict[tuple[str, str], dict[float, list[float]]] = {}
    for cell in cells:
        evaluation = figures(cell, root / cell.folder)
        of_factor = tried.setdefault((cell.method, cell.setup), {}).setdefault(cell.factor, [])
        of_factor.append(evaluation["recognition"]["top1"] if evaluation else math.nan)
    return {
        key: {factor: mean for factor, values in row.items() if not math.isnan(mean := fmean(values))}
        for key, row in tried.items()
    }


def best(tried: Scores) -> Factors:
    """Return the factor with the best score; of equal ones, the closest to 1."""
    return {
        key: max(row, key=lambda factor: (row[factor], -max(factor, 1 / factor)))
        for key, row in tried.items()
        if row
    }


def _run(title: str, root: Path, cells: Sequence[Cell], executor: Executor) -> list[Cell]:
    """Run the unfinished cells; return the failed ones."""
    todo = unfinished(root, cells)
    done = len(cells) - len(todo)
    _log.info("%s: %d cells, %d already finished.", title, len(cells), done)
    by_name = {cell.folder: cell for cell in todo}
    work = Work(
        title,
        root,
        function=f"{of_cell.__name__}:run",
        done=f"{of_cell.__name__}:done",
        items={name: cell.item(root) for name, cell in by_name.items()},
        modules=("ccl_cli.bench.preload", *modules_of(todo)),
    )
    with Reporter(title, len(cells), done, unit="cell") as reporter:
        reasons = map_items(work, executor, _Events(work, by_name, reporter))
    return [by_name[name] for name in reasons]


class _Events:
    """Report the outcome of each cell."""

    def __init__(self, work: Work, cells: Mapping[str, Cell], reporter: Reporter) -> None:
        self.work, self.cells, self.reporter = work, cells, reporter
        self._start: dict[str, float] = {}

    def began(self, name: str, place: str) -> None:
        """Show the running cell."""
        self._start[name] = time.monotonic()
        self.reporter.advance(0, text=f"{self.cells[name].label} on {place}")

    def ended(self, name: str) -> None:
        """Log the results of a cell, or the reason of its failure."""
        start, cell = self._start.get(name), self.cells[name]
        place = f"{time.monotonic() - start:.0f} s" if start is not None else "in another process"
        evaluation = figures(cell, self.work.folder / name)
        if evaluation is None:
            _log.warning("%s failed (%s): %s", cell.label, place, self.work.reason(name))
            self.reporter.advance()
        else:
            top1, r1 = evaluation["recognition"]["top1"], evaluation["retrieval"]["r1"]
            self.reporter.result(f"{cell.label}: top-1 {top1:.1f}, R@1 {r1:.1f} ({place})")


def _check_data(root: Path, cells: Sequence[Cell], hashes: dict[_Data, str]) -> None:
    """Raise an error if a data set has no labels, or has changed since earlier runs of the benchmark."""
    for cell in cells:
        data = cell.recipe.data, cell.recipe.holdout
        if data not in hashes:
            manifest = training_data(cell.recipe)
            manifest.labelled()
            hashes[data] = manifest.hash
        trained_on = RunFolder(root / cell.folder).summary.get("data", {}).get("manifest")
        if trained_on not in (None, hashes[data]):
            raise UsageError(
                f"The data set has changed since '{root / cell.folder}' was trained.",
                "Choose another name for the benchmark with --name.",
            )


def modules_of(cells: Sequence[Cell]) -> list[str]:
    """Return the plugin modules that the cells import."""
    plugins = set()
    for cell in cells:
        plugins.add(registry.find(registry.STUDENTS, parse_model(cell.recipe.student).name))
        for text in cell.recipe.teachers:
            plugins.add(registry.find(registry.TEACHERS, parse_model(text).label))
    return sorted({plugin.value.partition(":")[0] for plugin in plugins})
