"""What the studies share: runs that go on where they were interrupted, compared in pairs of one seed."""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch

from ccl_cli.config.recipe import Recipe
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.report.records.comparison import t_interval
from ccl_cli.training.run.folder import RunFolder
from ccl_cli.training.train import train

Values = Mapping[Hashable, float]  # by seed, or by world and seed
METRICS = {"top1": "top-1", "r1": "R@1"}
TASKS = {"top1": "recognition", "r1": "retrieval", "knn": "probe", "linear": "probe"}


class Run(Protocol):
    """One training of a study."""

    seed: int

    @property
    def folder(self) -> Path: ...
    @property
    def recipe(self) -> Recipe: ...
    @property
    def evaluations(self) -> Mapping[str, Mapping[str, Any]]:
        """By the name in the run's summary, the options of an evaluation."""
        ...


def done(run: Run) -> bool:
    """Whether every evaluation is there."""
    return evaluated(run).keys() >= run.evaluations.keys()


def evaluated(run: Run) -> Mapping[str, Any]:
    """The evaluations in the run's summary."""
    found: Mapping[str, Any] = RunFolder(run.folder).summary.get("evaluation", {})
    return found


def finish(run: Run) -> None:
    """Train what is left of a run, and evaluate it; in a process of its own."""
    if not RunFolder(run.folder).finished:
        train(run.recipe, resume="auto", output=run.folder)
    for options in run.evaluations.values():
        evaluate(run.folder, **options)


def finish_all(runs: Sequence[Run]) -> None:
    """Finish the runs in this order, two at a time, each in a process with one thread."""
    left = [run for run in runs if not done(run)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for number, (run, _) in enumerate(zip(left, pool.map(finish, left), strict=True), 1):
            print(f"{number}/{len(left)} {run}", flush=True)


def figures(runs: Sequence[Run], evaluation: str, metric: str) -> Values:
    """By seed, in percent, of the runs that have been evaluated."""
    found = ((run.seed, evaluated(run).get(evaluation, {})) for run in runs)
    return {
        seed: each[TASKS[metric]][metric] for seed, each in found if metric in each.get(TASKS[metric], {})
    }


def mean(values: Values) -> float:
    """Minus infinity without any."""
    return statistics.fmean(values.values()) if values else -math.inf


def spread(values: Values) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return "-"
    sd = f" ± {statistics.stdev(values.values()):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{sd}"


def gains(values: Values, others: Values) -> list[float]:
    """Points above the others, pair by pair."""
    return [values[key] - others[key] for key in sorted(values.keys() & others.keys())]


def difference(values: Values, others: Values) -> str:
    """Mean gain and its 95 % interval, Student's t; "" of less than two pairs and of a row beside itself."""
    pairs = gains(values, others)
    if len(pairs) < 2 or not any(pairs):
        return ""
    low, high = t_interval(pairs) or (math.nan, math.nan)
    return f"{statistics.fmean(pairs):+.1f} ({low:+.1f} to {high:+.1f})"


def write_report(path: str, *parts: str) -> None:
    """Write the paragraphs of a result, and show them."""
    text = "\n\n".join(parts) + "\n"
    Path(path).write_text(text)
    print(text)


def command(**parts: Callable[[], None]) -> None:
    """Do the part of a study that the command line names."""
    import sys

    parts[sys.argv[1]]()
