"""The benchmark from its recipe to its figures: what is finished is never run again."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from ccl_cli import registry
from ccl_cli.bench.cell import Place, figures, reason
from ccl_cli.bench.matrix import Cell, Factors, final_cells, section, tune_cells
from ccl_cli.bench.pool import places, run_cells
from ccl_cli.config.recipe import Recipe
from ccl_cli.config.spec import parse_model
from ccl_cli.data.sources import load_data
from ccl_cli.errors import UsageError
from ccl_cli.training.build import training_data
from ccl_cli.training.runs import RunFolder
from ccl_cli.utils import json_text
from ccl_cli.utils.files import hold, remove_leftovers, write_text
from ccl_cli.utils.json_text import fits
from ccl_cli.utils.paths import runs_dir
from ccl_cli.utils.progress import Reporter

TUNED = "tuned.json"
# Mean top-1 by factor, by row and column.
Scores = Mapping[tuple[str, str], Mapping[float, float]]
# Its name, and the share of the training list that is set aside.
_Data = tuple[str | None, float]
_log = logging.getLogger("ccl")


class Outcome(NamedTuple):
    """Folders of all cells of the tables, and of the runs that failed, those that choose weights too."""

    folders: list[Path]
    failed: list[Path]


def run_bench(recipe: Recipe, *, jobs: int | None = None) -> Outcome:
    """Run every cell that is not finished; choose weights first if the recipe says so.

    Args:
        recipe: With a benchmark.
        jobs: Cells at once; default one per GPU, or one.

    Raises:
        Interrupted: told to stop.
        UsageError: another benchmark runs in this folder, or the data has changed since cells finished.
    """
    root, tuning = folder_of(recipe), tuning_cells(recipe)
    bench = Runner(root, places(jobs), _data_hashes([*tuning, *final_cells(recipe, {})]))
    failed: list[Cell] = []
    factors: Factors = {}
    with hold(root / ".lock", f"A benchmark is running in '{root}' already.", "Wait for it, or use --name."):
        remove_leftovers(root)
        if tuning:
            failed += bench.run("tune", tuning)
            factors = choose(root, tuning)
        cells = final_cells(recipe, factors)
        failed += bench.run("bench", cells)
    return Outcome([root / cell.folder for cell in cells], [root / cell.folder for cell in failed])


def tuning_cells(recipe: Recipe) -> list[Cell]:
    """The runs that choose weights on this data set; none if the recipe's benchmark does not ask for it."""
    if section(recipe).tune is None:
        return []
    return tune_cells(recipe, hold_out=not load_data(recipe.data).split("val"))


def folder_of(recipe: Recipe) -> Path:
    """Where a benchmark's runs are."""
    section(recipe)
    return runs_dir() / recipe.name


def unfinished(root: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Cells without figures."""
    return [cell for cell in cells if figures(cell, root / cell.folder) is None]


def choose(root: Path, cells: Sequence[Cell]) -> Factors:
    """The best factor of each row and column, which is also written to ``tuned.json``.

    A row of which no factor has the figures of all its seeds keeps its weight.
    """
    found = scores(root, cells)
    chosen = best(found)
    for (method, setup), row in found.items():
        if factor := chosen.get((method, setup)):
            _log.info("%s %s: weight x%g (val top-1 %.1f)", method, setup, factor, row[factor])
        else:
            _log.warning("%s %s: no factor has all its figures; the weight stays as it is.", method, setup)
    _record(root / TUNED, found, chosen)
    return chosen


def scores(root: Path, cells: Sequence[Cell]) -> Scores:
    """Mean top-1 on the videos set aside, of the factors that have the figures of all their seeds."""
    tried: dict[tuple[str, str], dict[float, list[float]]] = {}
    for cell in cells:
        found = figures(cell, root / cell.folder)
        of_factor = tried.setdefault((cell.method, cell.setup), {}).setdefault(cell.factor, [])
        of_factor.append(found["recognition"]["top1"] if found else math.nan)
    return {
        key: {factor: mean for factor, values in row.items() if not math.isnan(mean := fmean(values))}
        for key, row in tried.items()
    }


def best(found: Scores) -> Factors:
    """The factor with the best score; of equals, the one nearest to 1."""
    return {
        key: max(row, key=lambda factor: (row[factor], -max(factor, 1 / factor)))
        for key, row in found.items()
        if row
    }


def _record(path: Path, found: Scores, chosen: Factors) -> None:
    """Lay what was chosen over what an earlier call chose for other rows and columns."""
    entries: list[dict[str, Any]] = []
    with suppress(OSError, ValueError):
        before = json_text.parse(path.read_text(encoding="utf-8"))
        entries = before if fits(before, [{"method": str, "setup": str}]) else []
    record = {(entry["method"], entry["setup"]): entry for entry in entries}
    for (method, setup), factor in chosen.items():
        row = found[method, setup]
        record[method, setup] = {"method": method, "setup": setup, "factor": factor, "val_top1": row}
    write_text(path, json.dumps(list(record.values()), indent=2) + "\n")


class Runner:
    """Runs lists of cells and tells how far they are.

    Args:
        root: The benchmark's folder.
        where: Places; each takes one cell at a time.
        hashes: Of every data set that cells train on.
    """

    def __init__(self, root: Path, where: Sequence[Place], hashes: Mapping[_Data, str]) -> None:
        self.root, self.where, self.hashes = root, where, hashes
        self.failed: list[Cell] = []
        self.began: dict[str, float] = {}

    def run(self, title: str, cells: Sequence[Cell]) -> list[Cell]:
        """Run what is not finished; the cells that failed."""
        self._check_data(cells)
        todo = unfinished(self.root, cells)
        done = len(cells) - len(todo)
        _log.info("%s: %d cells, %d of them finished before.", title, len(cells), done)
        self.failed, self.began = [], {}
        with Reporter(title, len(cells), done, unit="cell") as self.reporter:
            run_cells(
                [(cell, self.root / cell.folder) for cell in todo],
                self.where,
                modules_of(todo),
                began=self._begin,
                ended=self._end,
            )
        return self.failed

    def _begin(self, cell: Cell, place: Place) -> None:
        self.began[cell.folder] = time.monotonic()
        self.reporter.advance(0, text=f"{cell.label} on {place.name}")

    def _end(self, cell: Cell, folder: Path, code: int) -> None:
        seconds = time.monotonic() - self.began[cell.folder]
        found = figures(cell, folder)
        if code or found is None:
            self.failed.append(cell)
            why = reason(folder) or f"it ended with exit code {code} and could not write down why"
            _log.warning("%s failed after %.0f s: %s", cell.label, seconds, why)
        else:
            top1, r1 = found["recognition"]["top1"], found["retrieval"]["r1"]
            _log.info("%s: top-1 %.1f, R@1 %.1f (%.0f s)", cell.label, top1, r1, seconds)
        self.reporter.advance()

    def _check_data(self, cells: Sequence[Cell]) -> None:
        """Refuse to lay runs on data that has changed beside those that finished before."""
        for cell in cells:
            known = RunFolder(self.root / cell.folder).summary.get("data", {}).get("manifest")
            if known not in (None, self.hashes[_data_of(cell)]):
                raise UsageError(
                    f"The data set has changed since '{self.root / cell.folder}' was trained.",
                    "Give this benchmark another name with --name.",
                )


def _data_of(cell: Cell) -> _Data:
    return cell.recipe.data, cell.recipe.holdout


def _data_hashes(cells: Sequence[Cell]) -> dict[_Data, str]:
    """The hash of each data set that the cells train on, which is listed once."""
    recipes = {_data_of(cell): cell.recipe for cell in cells}
    return {key: training_data(recipe).hash for key, recipe in recipes.items()}


def modules_of(cells: Sequence[Cell]) -> list[str]:
    """The plugins' modules that the cells are going to import."""
    plugins = set()
    for cell in cells:
        plugins.add(registry.find(registry.STUDENTS, parse_model(cell.recipe.student).name))
        for text in cell.recipe.teachers:
            plugins.add(registry.find(registry.TEACHERS, parse_model(text).label))
    return sorted({plugin.value.partition(":")[0] for plugin in plugins})
