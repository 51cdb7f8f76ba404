"""The benchmark from its recipe to its figures: what is finished is never run again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from ccl_cli import registry
from ccl_cli.bench import cell as of_cell
from ccl_cli.bench.cell import figures
from ccl_cli.bench.matrix import Cell, Factors, final_cells, section, tune_cells
from ccl_cli.config.recipe import Executor, Recipe
from ccl_cli.config.spec import parse_model
from ccl_cli.data.sources import load_data
from ccl_cli.errors import UsageError
from ccl_cli.executors import map_items
from ccl_cli.executors.part import WHOLE, Part
from ccl_cli.executors.work import Work, failed_at
from ccl_cli.training.build import training_data
from ccl_cli.training.run.folder import RunFolder
from ccl_cli.utils.paths import runs_dir
from ccl_cli.utils.progress import Reporter

# Mean top-1 by factor, by row and column.
Scores = Mapping[tuple[str, str], Mapping[float, float]]
# Its name, and the share of the training split that is set aside.
_Data = tuple[str | None, float]
_log = logging.getLogger("ccl")


class Outcome(NamedTuple):
    """Folders of all cells of the tables, and of the runs that failed, those that choose weights too."""

    folders: list[Path]
    failed: list[Path]


def run_bench(recipe: Recipe, *, part: Part = WHOLE) -> Outcome:
    """Run every cell that is not finished; choose weights first if the recipe asks for it.

    Several processes, on several machines with one disk, may run one benchmark: they share the cells.

    Args:
        recipe: With a benchmark; its section ``executor`` says who runs it.
        part: Which cells to run; those that choose weights must all be finished before the others begin.

    Returns:
        All cells of the tables, whoever runs them, and those of the part that failed.

    Raises:
        Interrupted: a signal stopped it.
        UsageError: the data has changed since cells finished, or other parts have not chosen weights yet.
        SystemSetupError: the executor cannot do its work.
    """
    root, tuning = folder_of(recipe), tuning_cells(recipe)
    hashes = _data_hashes([*tuning, *final_cells(recipe, {})])
    failed: list[Cell] = []
    factors: Factors = {}
    if tuning:
        _check_data(root, tuning, hashes)
        failed += _run("tune", root, part.of(tuning), recipe.executor)
        _check_others(part, root, tuning)
        factors = choose(root, tuning)
    cells = final_cells(recipe, factors)
    _check_data(root, cells, hashes)
    failed += _run("bench", root, part.of(cells), recipe.executor)
    return Outcome([root / cell.folder for cell in cells], [root / cell.folder for cell in failed])


def tuning_cells(recipe: Recipe) -> list[Cell]:
    """The runs that choose weights; none if the recipe's benchmark does not ask for it."""
    tune = section(recipe).tune
    if tune is None:
        return []
    return tune_cells(recipe, hold_out=not load_data(tune.data or recipe.data).split("val"))


def folder_of(recipe: Recipe) -> Path:
    """Where a benchmark's runs are."""
    section(recipe)
    return runs_dir() / recipe.name


def unfinished(root: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Cells without figures."""
    return [cell for cell in cells if figures(cell, root / cell.folder) is None]


def choose(root: Path, cells: Sequence[Cell]) -> Factors:
    """The best factor of each row and column; a row without figures of all seeds of a factor has none."""
    tried = scores(root, cells)
    chosen = best(tried)
    for (method, setup), row in tried.items():
        if factor := chosen.get((method, setup)):
            _log.info("%s %s: weight x%g (val top-1 %.1f)", method, setup, factor, row[factor])
        else:
            _log.warning("%s %s: no factor has all its figures; the weight stays as it is.", method, setup)
    return chosen


def scores(root: Path, cells: Sequence[Cell]) -> Scores:
    """Mean top-1 on the videos set aside, of the factors that have the figures of all their seeds."""
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
    """The factor with the best score; of equals, the one nearest to 1."""
    return {
        key: max(row, key=lambda factor: (row[factor], -max(factor, 1 / factor)))
        for key, row in tried.items()
        if row
    }


def _run(title: str, root: Path, cells: Sequence[Cell], executor: Executor) -> list[Cell]:
    """Run what is not finished; the cells that failed."""
    todo = unfinished(root, cells)
    done = len(cells) - len(todo)
    _log.info("%s: %d cells, %d of them finished before.", title, len(cells), done)
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
        events = _Events(work, by_name, reporter)
        reasons = map_items(work, executor, events)
    for name in reasons.keys() - events.reported:
        _log.warning("%s failed: %s", by_name[name].label, reasons[name])
    return [by_name[name] for name in reasons]


def _check_others(part: Part, root: Path, tuning: Sequence[Cell]) -> None:
    """Refuse to choose while other parts still run; a run that failed is finished too."""
    left = [cell for cell in unfinished(root, tuning) if failed_at(root / cell.folder) is None]
    if part != WHOLE and left:
        raise UsageError(
            f"{len(left)} of the runs that choose weights are not finished, such as '{left[0].label}'.",
            "Wait for the other parts, then give the same command again.",
        )


class _Events:
    """Reports how each cell ends.

    Attributes:
        reported: Names of the cells whose end has been reported.
    """

    def __init__(self, work: Work, cells: Mapping[str, Cell], reporter: Reporter) -> None:
        self.work, self.cells, self.reporter = work, cells, reporter
        self.reported: set[str] = set()
        self._start: dict[str, float] = {}

    def began(self, name: str, place: str) -> None:
        """Show the cell that runs."""
        self._start[name] = time.monotonic()
        self.reporter.advance(0, text=f"{self.cells[name].label} on {place}")

    def ended(self, name: str) -> None:
        """Report a cell's figures, or why it failed."""
        self.reported.add(name)
        start, cell = self._start.get(name), self.cells[name]
        place = f"{time.monotonic() - start:.0f} s" if start is not None else "in another process"
        evaluation = figures(cell, self.work.folder / name)
        if evaluation is None:
            _log.warning("%s failed (%s): %s", cell.label, place, self.work.reason(name))
        else:
            top1, r1 = evaluation["recognition"]["top1"], evaluation["retrieval"]["r1"]
            _log.info("%s: top-1 %.1f, R@1 %.1f (%s)", cell.label, top1, r1, place)
        self.reporter.advance()


def _check_data(root: Path, cells: Sequence[Cell], hashes: Mapping[_Data, str]) -> None:
    """Refuse to lay runs on data that has changed beside those that finished before."""
    for cell in cells:
        manifest = RunFolder(root / cell.folder).summary.get("data", {}).get("manifest")
        if manifest not in (None, hashes[_data_of(cell)]):
            raise UsageError(
                f"The data set has changed since '{root / cell.folder}' was trained.",
                "Give this benchmark another name with --name.",
            )


def _data_of(cell: Cell) -> _Data:
    return cell.recipe.data, cell.recipe.holdout


def _data_hashes(cells: Sequence[Cell]) -> dict[_Data, str]:
    """The hash of each data set that the cells train on, which is listed once.

    Raises:
        DataError: one has no labels to evaluate with.
    """
    recipes = {_data_of(cell): cell.recipe for cell in cells}
    manifests = {key: training_data(recipe) for key, recipe in recipes.items()}
    for manifest in manifests.values():
        manifest.labelled()
    return {key: manifest.hash for key, manifest in manifests.items()}


def modules_of(cells: Sequence[Cell]) -> list[str]:
    """The plugins' modules that the cells are going to import."""
    plugins = set()
    for cell in cells:
        plugins.add(registry.find(registry.STUDENTS, parse_model(cell.recipe.student).name))
        for text in cell.recipe.teachers:
            plugins.add(registry.find(registry.TEACHERS, parse_model(text).label))
    return sorted({plugin.value.partition(":")[0] for plugin in plugins})
