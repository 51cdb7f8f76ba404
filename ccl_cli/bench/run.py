"""The benchmark from its recipe to its figures: what is finished is never run again."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from ccl_cli import registry
from ccl_cli.bench.cell import Place, figures, reason
from ccl_cli.bench.matrix import Cell, Factors, final_cells, section, tune_cells
from ccl_cli.bench.pool import places, run_cells
from ccl_cli.data.manifest import Manifest
from ccl_cli.engine.build import load_data, training_data
from ccl_cli.engine.progress import Reporter
from ccl_cli.engine.runs import RunFolder
from ccl_cli.errors import UsageError
from ccl_cli.files import hold, write_text
from ccl_cli.paths import runs_dir
from ccl_cli.recipe import Recipe
from ccl_cli.spec import parse_model

TUNED = "tuned.json"
_log = logging.getLogger("ccl")


class Outcome(NamedTuple):
    """Folders of all cells of the tables, and of those that failed."""

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
    root = folder_of(recipe)
    manifest = load_data(recipe.data)
    bench = Runner(root, places(jobs))
    with hold(root / ".lock", f"A benchmark is running in '{root}' already.", "Wait for it, or use --name."):
        factors: Factors = {}
        if to_tune := tune_cells(recipe, hold_out=not manifest.split("val")):
            bench.run("tune", to_tune, training_data(to_tune[0].recipe))
            factors = choose(root, to_tune)
        cells = final_cells(recipe, factors)
        failed = bench.run("bench", cells, manifest)
    return Outcome([root / cell.folder for cell in cells], [root / cell.folder for cell in failed])


def folder_of(recipe: Recipe) -> Path:
    """Where a benchmark's runs are."""
    section(recipe)
    return runs_dir() / recipe.name


def unfinished(root: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Cells without figures."""
    return [cell for cell in cells if figures(cell, root / cell.folder) is None]


def choose(root: Path, cells: Sequence[Cell]) -> Factors:
    """The factor with the best mean top-1 on the videos set aside; of equals, the one nearest to 1.

    What was tried is written to ``tuned.json``. A method none of whose runs has figures keeps its weight.
    """
    tried: dict[tuple[str, str], dict[float, list[float]]] = {}
    for cell in cells:
        found = figures(cell, root / cell.folder)
        if found is not None:
            of_factor = tried.setdefault((cell.method, cell.setup), {})
            of_factor.setdefault(cell.factor, []).append(found["recognition"]["top1"])
    means = {key: {factor: fmean(values) for factor, values in row.items()} for key, row in tried.items()}
    chosen = {
        key: max(row, key=lambda factor: (row[factor], -max(factor, 1 / factor)))
        for key, row in means.items()
    }
    record = [
        {"method": method, "setup": setup, "factor": chosen[method, setup], "val_top1": row}
        for (method, setup), row in means.items()
    ]
    write_text(root / TUNED, json.dumps(record, indent=2) + "\n")
    for (method, setup), factor in chosen.items():
        _log.info("%s %s: weight x%g (val top-1 %.1f)", method, setup, factor, means[method, setup][factor])
    return chosen


class Runner:
    """Runs lists of cells and tells how far they are."""

    def __init__(self, root: Path, where: Sequence[Place]) -> None:
        self.root, self.where = root, where
        self.failed: list[Cell] = []
        self.began: dict[str, float] = {}

    def run(self, title: str, cells: Sequence[Cell], manifest: Manifest) -> list[Cell]:
        """Run what is not finished; the cells that failed."""
        self._check_data(cells, manifest)
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
            _log.warning("%s failed after %.0f s: %s", cell.label, seconds, reason(folder))
        else:
            top1, r1 = found["recognition"]["top1"], found["retrieval"]["r1"]
            _log.info("%s: top-1 %.1f, R@1 %.1f (%.0f s)", cell.label, top1, r1, seconds)
        self.reporter.advance()

    def _check_data(self, cells: Sequence[Cell], manifest: Manifest) -> None:
        for cell in cells:
            known = RunFolder(self.root / cell.folder).summary.get("data", {}).get("manifest")
            if known is not None and known != manifest.hash:
                raise UsageError(
                    f"The data set has changed since '{self.root / cell.folder}' was trained.",
                    "Give this benchmark another name with --name.",
                )


def modules_of(cells: Sequence[Cell]) -> list[str]:
    """The plugins' modules that the cells are going to import."""
    plugins = set()
    for cell in cells:
        plugins.add(registry.find(registry.STUDENTS, parse_model(cell.recipe.student).name))
        for text in cell.recipe.teachers:
            plugins.add(registry.find(registry.TEACHERS, parse_model(text).label))
    return sorted({plugin.value.partition(":")[0] for plugin in plugins})
