"""The runs of a benchmark and their state."""

from __future__ import annotations

from typing import NamedTuple

from ccl_cli.bench.matrix import final_cells
from ccl_cli.bench.run import best, folder_of, scores, tuning_cells, unfinished
from ccl_cli.config.recipe import Recipe


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
    factors = {} if to_tune else best(scores(root, tuning))
    cells = tuning + final_cells(recipe, factors)
    todo = {cell.folder for cell in unfinished(root, cells)}
    states = {True: "to do", False: "finished"}
    return [PlannedRun(cell.label, states[cell.folder in todo], cell.folder) for cell in cells], to_tune
