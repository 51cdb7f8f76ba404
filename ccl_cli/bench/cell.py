"""One cell of a benchmark: train, evaluate, and store the results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ccl_cli.bench.matrix import Cell
from ccl_cli.config.recipe import Recipe
from ccl_cli.training.run.folder import CELL, RunFolder
from ccl_cli.utils.files import write_text


def run(item: Mapping[str, Any]) -> None:
    """Train a cell, or resume its training, and evaluate it.

    Args:
        item: Return value of :meth:`ccl_cli.bench.matrix.Cell.item`.
    """
    from ccl_cli.evaluation.evaluate import evaluate
    from ccl_cli.evaluation.while_training import train

    folder, recipe = Path(item["folder"]), Recipe.model_validate(item["recipe"])
    write_text(folder / CELL, json.dumps(item["record"]) + "\n")
    if not _trained(RunFolder(folder), recipe.train.max_steps):
        train(recipe, resume="auto", output=folder)
    evaluate(folder, split=_split(item["record"]["phase"]))


def done(item: Mapping[str, Any]) -> bool:
    """Return whether a cell has its results."""
    steps = item["recipe"]["train"]["max_steps"]
    return _figures(RunFolder(Path(item["folder"])), steps, item["record"]["phase"]) is not None


def figures(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """Return the ``recognition`` and ``retrieval`` results of a finished cell in percent, else None."""
    return _figures(RunFolder(folder), cell.recipe.train.max_steps, cell.phase)


def _figures(run: RunFolder, max_steps: int, phase: str) -> dict[str, Any] | None:
    if not _trained(run, max_steps):
        return None
    evaluations: dict[str, dict[str, Any]] = run.summary.get("evaluation", {})
    return next((each for name, each in evaluations.items() if name.endswith(f"-{_split(phase)}")), None)


def _trained(run: RunFolder, max_steps: int) -> bool:
    return run.finished or 0 < max_steps <= run.summary.get("steps", 0)


def _split(phase: str) -> str:
    return "val" if phase == "tune" else "test"
