"""From nothing to a verdict on the paper's claim, offline: data, teachers, runs, and a page about them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ccl_cli.bench.run import folder_of, run_bench
from ccl_cli.config.recipe import Recipe
from ccl_cli.config.spec import parse_data, parse_model
from ccl_cli.data.sources import load_data
from ccl_cli.errors import RecipeError, WeightsError
from ccl_cli.report.comparison import compare
from ccl_cli.report.finding import finding
from ccl_cli.report.page import page
from ccl_cli.report.results import BASELINE, Cell, Results, load_results
from ccl_cli.training.build import load_teacher, load_teachers
from ccl_cli.training.cache.caching import build_cache
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.fit_teacher import FitOptions, fit_teacher
from ccl_cli.utils.files import write_text

METRICS = ("top1", "r1")
# What each teacher of the demo was trained for: not the actions that the student learns.
_OWN_TASKS = {"audio:small": "synthetic?labels=sounds", "image:small": "synthetic?labels=objects"}
_STAGES = 4
_MOST_JOBS = 8
_log = logging.getLogger("ccl")


@dataclass(frozen=True)
class Demo:
    """What came of it.

    Attributes:
        results: The runs that ended.
        failed: Folders of those that did not.
        page: The report.
        seconds: From the first stage to the page.
    """

    results: Results
    failed: tuple[Path, ...]
    page: Path
    seconds: float


def with_correspondence(recipe: Recipe, correspondence: float) -> Recipe:
    """The recipe on a world where sounds go with actions as often as ``correspondence``, in [0, 1], says.

    Raises:
        RecipeError: the recipe's data set has no such dial.
    """
    spec = parse_data(recipe.data or "")
    if spec.kind != "synthetic":
        raise RecipeError(f"The dial is one of the data set 'synthetic', not of '{spec.kind}'.")
    dialled = replace(spec, options=spec.options | {"correspondence": correspondence})
    return recipe.model_copy(update={"data": str(dialled)})


def run_demo(recipe: Recipe, output: Path | None = None, jobs: int | None = None) -> Demo:
    """Make the data, fit the teachers that are not there, train and evaluate every run, write the page.

    What is there from an earlier call is kept.

    Args:
        recipe: With a benchmark on the data set ``synthetic``.
        output: The page; None: ``report.html`` beside the runs.
        jobs: Runs at once; None: one per core, or per GPU.

    Raises:
        Interrupted: stopped by a signal; the next call goes on.
        CclError: anything the user can fix.
    """
    began = time.monotonic()
    output = output or folder_of(recipe) / "report.html"
    with _stage(1, "Videos with sound, drawn and encoded") as tell:
        manifest = load_data(recipe.data)
        counts = {name: len(manifest.split(name)) for name in ("train", "test")}
        tell(f"{counts['train']} to train on, {counts['test']} to test on; {len(manifest.classes)} actions")
    with _stage(2, "Teachers, each trained on its own task with other clips") as tell:
        fitted = [_fit_unless_there(text) for text in _teachers(recipe)]
        tell("; ".join(fitted))
        # Once for all runs, which would otherwise wait for the one that does it.
        cached = _teachers(recipe) if recipe.cache.use == "build" else ()
        for name, teacher in load_teachers(cached, manifest.classes).items():
            build_cache(name, teacher, manifest, recipe, set_up("fp32"))
    with _stage(3, "Students, trained with and without teachers") as tell:
        executor = recipe.executor.model_copy(update={"jobs": jobs or _cores_unless_gpu()})
        outcome = run_bench(recipe.model_copy(update={"executor": executor}))
        tell(f"{len(outcome.folders) - len(outcome.failed)} of {len(outcome.folders)} runs")
    with _stage(4, "Report") as tell:
        results = load_results(outcome.folders)
        write_text(output, page(results))
        tell(str(output))
    return Demo(results, tuple(outcome.failed), output, time.monotonic() - began)


def summary(demo: Demo) -> dict[str, Any]:
    """Everything as one JSON object: ``finding``, ``methods.<name>.<setup>.top1|r1`` in percent, ``report``.

    The baseline, which has no teachers, is repeated in every setup; ``over_baseline`` holds the mean
    difference between runs of one seed and its 95 % interval, in percentage points.
    """
    results = demo.results
    return {
        "data": results.data,
        "finding": " ".join(finding(results)),
        "methods": {
            method: {setup: row for setup in results.setups if (row := _metrics(results, method, setup))}
            for method in results.methods
        },
        "failed": [str(folder) for folder in demo.failed],
        "report": str(demo.page),
        "seconds": round(demo.seconds, 1),
    }


def _metrics(results: Results, method: str, setup: str) -> dict[str, Any]:
    cells = {metric: results.find(results.data, method, setup, metric) for metric in METRICS}
    return {metric: _metric(results, cell, setup) for metric, cell in cells.items() if cell and cell.runs}


def _metric(results: Results, cell: Cell, setup: str) -> dict[str, Any]:
    record: dict[str, Any] = {"mean": cell.mean, "sd": cell.sd, "by_seed": cell.values}
    if cell.method != BASELINE and results.find(results.data, BASELINE, setup, cell.metric):
        (pair,) = compare(results, cell.method, BASELINE, cell.metric, (setup,))
        record["over_baseline"] = {"mean": pair.mean, "interval": pair.interval}
    return record


def _teachers(recipe: Recipe) -> list[str]:
    assert recipe.bench
    return list(dict.fromkeys(text for teachers in recipe.bench.setups.values() for text in teachers))


def _fit_unless_there(text: str) -> str:
    """One teacher made ready; what there is to say of it."""
    spec = parse_model(text)
    try:
        load_teacher(spec)
        return f"{spec.label} from an earlier call"
    except WeightsError:
        if spec.weights or spec.label not in _OWN_TASKS:
            raise
    # Processes that decode would take longer to start than these files to decode.
    report = fit_teacher(spec, _OWN_TASKS[spec.label], options=FitOptions(workers=0))
    assert report.held_out
    right = f"{100 * report.held_out.accuracy:.0f} % of {report.held_out.videos} test clips right"
    return f"{spec.label} tells {len(report.classes)} classes, {right}"


def _cores_unless_gpu() -> int | None:
    import torch

    return None if torch.cuda.is_available() else min(os.cpu_count() or 1, _MOST_JOBS)


@contextmanager
def _stage(number: int, title: str) -> Iterator[Callable[[str], None]]:
    """Tell when a stage begins, and when it has ended what came of it and how long it took."""
    began = time.monotonic()
    outcomes: list[str] = []
    _log.info("[%d/%d] %s", number, _STAGES, title)
    yield outcomes.append
    _log.info("[%d/%d] done in %.0f s: %s", number, _STAGES, time.monotonic() - began, " ".join(outcomes))
