"""``ccl demo``: reproduce the paper's claim offline, with generated data, fitted teachers and a report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ccl_cli.bench.run import folder_of, run_bench
from ccl_cli.config.recipe import Recipe
from ccl_cli.config.spec import parse_data, parse_model
from ccl_cli.data.sources import load_data
from ccl_cli.errors import RecipeError, WeightsError
from ccl_cli.report.page.page import page
from ccl_cli.report.records.comparison import compare
from ccl_cli.report.records.conclusion import conclusion
from ccl_cli.report.records.results import BASELINE, Results, load_results
from ccl_cli.training.build import load_teacher, load_teachers
from ccl_cli.training.cache.build import build_cache
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.fit_teacher import FitOptions, fit_teacher
from ccl_cli.utils.files import write_text
from ccl_cli.utils.processes import cores

METRICS = ("top1", "r1")
# The task of each teacher, which differs from the student's task.
_OWN_TASKS = {"audio:small": "synthetic?labels=sounds", "image:small": "synthetic?labels=objects"}
_STAGES = 4
_MAX_JOBS = 8
_log = logging.getLogger("ccl")


@dataclass(frozen=True)
class Demo:
    """Result of the demo.

    Attributes:
        results: Finished runs.
        failed: Folders of failed runs.
        page: Path of the report.
        seconds: Total time.
    """

    results: Results
    failed: tuple[Path, ...]
    page: Path
    seconds: float


def with_correspondence(recipe: Recipe, correspondence: float) -> Recipe:
    """Return the recipe with data in which the sound matches the action with this probability, in [0, 1].

    Raises:
        RecipeError: the recipe's data set has no such option.
    """
    spec = parse_data(recipe.data or "")
    if spec.kind != "synthetic":
        raise RecipeError(
            f"The data set '{spec.kind}' has no option 'correspondence'.", "Use the data set 'synthetic'."
        )
    changed = replace(spec, options=spec.options | {"correspondence": correspondence})
    return recipe.model_copy(update={"data": str(changed)})


def run_demo(recipe: Recipe, output: Path | None = None, jobs: int | None = None) -> Demo:
    """Generate the data, fit missing teachers, train and evaluate every run, and write the page.

    Results of an earlier call are kept.

    Args:
        recipe: Recipe with a benchmark on the data set ``synthetic``.
        output: Path of the page. Default: ``report.html`` beside the runs.
        jobs: Number of parallel runs. Default: one per core, or one per GPU.

    Raises:
        Interrupted: stopped by a signal; the next call continues.
        CclError: an error that the user can fix.
    """
    began = time.monotonic()
    output = output or folder_of(recipe) / "report.html"
    with _stage(1, "Generating videos with sound") as tell:
        manifest = load_data(recipe.data)
        counts = {name: len(manifest.split(name)) for name in ("train", "test")}
        tell(f"{counts['train']} training and {counts['test']} test videos; {len(manifest.classes)} actions")
    with _stage(2, "Training each teacher on its own task and clips") as tell:
        fitted = [_fit_if_missing(text) for text in _teachers(recipe)]
        tell("; ".join(fitted))
        # Cache the embeddings once here; otherwise all runs would wait for the first one to do it.
        cached = _teachers(recipe) if recipe.cache.use == "build" else ()
        for name, teacher in load_teachers(cached, manifest.classes).items():
            build_cache(name, teacher, manifest, recipe, set_up("fp32"))
    with _stage(3, "Training students with and without teachers") as tell:
        if not jobs and not torch.cuda.is_available():
            jobs = min(cores(), _MAX_JOBS)
        executor = recipe.executor.model_copy(update={"jobs": jobs})
        outcome = run_bench(recipe.model_copy(update={"executor": executor}))
        tell(f"{len(outcome.folders) - len(outcome.failed)} of {len(outcome.folders)} runs")
    with _stage(4, "Report") as tell:
        results = load_results(outcome.folders)
        write_text(output, page(results))
        tell(str(output))
    return Demo(results, tuple(outcome.failed), output, time.monotonic() - began)


def summary(demo: Demo) -> dict[str, Any]:
    """Return the conclusion and the scores as JSON values.

    The keys are ``finding``, ``methods.<name>.<setup>.top1|r1`` in percent, and ``report``. The baseline,
    which has no teachers, is repeated in every setup. ``over_baseline`` is the mean difference between runs
    with the same seed and its 95 % interval, in percentage points.
    """
    results = demo.results
    return {
        "data": results.data,
        "finding": " ".join(conclusion(results)),
        "methods": {
            method: {setup: row for setup in results.setups if (row := _metrics(results, method, setup))}
            for method in results.methods
        },
        "failed": [str(folder) for folder in demo.failed],
        "report": str(demo.page),
        "seconds": round(demo.seconds, 1),
    }


def _metrics(results: Results, method: str, setup: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in METRICS:
        cell = results.find(results.data, method, setup, metric)
        if cell is None or not cell.runs:
            continue
        found[metric] = {"mean": cell.mean, "sd": cell.sd, "by_seed": cell.values}
        if method != BASELINE and results.find(results.data, BASELINE, setup, metric):
            (pair,) = compare(results, method, BASELINE, metric, (setup,))
            found[metric]["over_baseline"] = {"mean": pair.mean, "interval": pair.interval}
    return found


def _teachers(recipe: Recipe) -> list[str]:
    assert recipe.bench
    return list(dict.fromkeys(text for teachers in recipe.bench.setups.values() for text in teachers))


def _fit_if_missing(text: str) -> str:
    """Fit one teacher unless its weights exist; return a summary."""
    spec = parse_model(text)
    try:
        load_teacher(spec)
        return f"{spec.label} from an earlier call"
    except WeightsError:
        if spec.weights or spec.label not in _OWN_TASKS:
            raise
    # Starting workers would take longer than decoding these files.
    report = fit_teacher(spec, _OWN_TASKS[spec.label], options=FitOptions(workers=0))
    assert report.held_out
    right = f"accuracy {100 * report.held_out.accuracy:.0f} % on {report.held_out.videos} test clips"
    return f"{spec.label}, {len(report.classes)} classes, {right}"


@contextmanager
def _stage(number: int, title: str) -> Iterator[Callable[[str], None]]:
    """Log the start of a stage, and its outcome and duration at the end."""
    began = time.monotonic()
    outcomes: list[str] = []
    _log.info("[%d/%d] %s", number, _STAGES, title)
    yield outcomes.append
    _log.info("[%d/%d] done in %.0f s: %s", number, _STAGES, time.monotonic() - began, " ".join(outcomes))
