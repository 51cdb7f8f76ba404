"""Which optimiser, schedule and average of the weights should a new user get? In the demo's world.

    python benchmarks/defaults.py run       # goes on where it was interrupted; half an hour on two cores
    python benchmarks/defaults.py report    # benchmarks/results/defaults.md

Every row has the same number of steps and three learning rates to choose from, by the mean top-1 of two seeds
on the val split of the world of ``seed=10``. The figures are those of the test split of another world, with
other seeds. The moving average does not touch the training, so each run is evaluated with it and without. A
difference is between runs of one seed; its interval is Student's t at 95 %, not corrected for the number of
comparisons.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from measuring import table_text
from paired import Values, difference, mean, spread, two_at_a_time

from ccl_cli.bench.matrix import recipe_with
from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Recipe
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.training.run.folder import RunFolder
from ccl_cli.training.train import train
from ccl_cli.utils.paths import runs_dir

SEARCH_WORLD, SEARCH_SEEDS = 10, (40, 41)
WORLD, SEEDS = 7, (32, 33, 34, 35, 36, 37)
EMA = 0.99
ADAMW = {"name": "adamw", "weight_decay": 0.05, "norm_weight_decay": False}
# By row: keys of `optim`, and learning rates to choose from.
OPTIMISERS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "SGD, steps": ({"schedule": "step"}, (0.03, 0.1, 0.3)),
    "SGD, cosine": ({"schedule": "cosine"}, (0.03, 0.1, 0.3)),
    "AdamW, cosine": ({"schedule": "cosine", **ADAMW}, (0.001, 0.003, 0.01)),
}
METHODS = ("baseline", "ccl")
WEIGHTS = ("raw", "ema")
METRICS = {"top1": ("recognition", "top-1"), "r1": ("retrieval", "R@1")}
REFERENCE = "SGD, steps"  # with raw weights: what the paper's recipes do
RESULT = Path("benchmarks/results/defaults.md")


class Run(NamedTuple):
    """One training."""

    optimiser: str
    method: str
    rate: float
    world: int
    seed: int

    @property
    def folder(self) -> Path:
        """Where it is."""
        name = f"{self.optimiser}-{self.method}-{self.rate:g}-w{self.world}-s{self.seed}"
        return runs_dir() / "defaults" / name.replace(", ", "-")

    @property
    def split(self) -> str:
        """Choices are made on the val split."""
        return "val" if self.world == SEARCH_WORLD else "test"

    @property
    def recipe(self) -> Recipe:
        """What it trains."""
        changes: dict[str, Any] = {"data": f"synthetic?seed={self.world}", "method": {self.method: {}}}
        if self.method == "baseline":
            changes["teachers"] = []
        changes["optim"] = OPTIMISERS[self.optimiser][0] | {"lr": self.rate}
        changes["train"] = {"seed": self.seed, "ema": EMA}
        return recipe_with(load_recipe("synthetic"), changes, "defaults")


def search() -> list[Run]:
    """The runs that choose learning rates."""
    return [
        Run(name, method, rate, SEARCH_WORLD, seed)
        for (name, (_, rates)), method in product(OPTIMISERS.items(), METHODS)
        for rate, seed in product(rates, SEARCH_SEEDS)
    ]


def final() -> list[Run]:
    """The runs of the table, once each: of a row with and without the average often the same."""
    rows = product(OPTIMISERS, METHODS, WEIGHTS)
    return list(dict.fromkeys(each for row in rows for each in finals(*row)))


def finals(optimiser: str, method: str, weights: str) -> list[Run]:
    """Those of one row, at its own learning rate."""
    rate = chosen_rate(optimiser, method, weights)
    return [Run(optimiser, method, rate, WORLD, seed) for seed in SEEDS]


def chosen_rate(optimiser: str, method: str, weights: str) -> float:
    """The learning rate with the best mean top-1 on the val split."""

    def score(rate: float) -> float:
        runs = [Run(optimiser, method, rate, SEARCH_WORLD, seed) for seed in SEARCH_SEEDS]
        return mean(figures(runs, weights, "top1"))

    return max(OPTIMISERS[optimiser][1], key=score)


def run() -> None:
    """Everything, two runs at a time; `ccl teachers fit` has to have made the teachers."""
    for stage in search, final:
        two_at_a_time(finish, [each for each in stage() if not done(each)])


def key(each: Run, weights: str) -> str:
    """Of an evaluation in the run's summary: the average is what is published."""
    return f"synthetic-{each.split}{'-raw' if weights == 'raw' else ''}"


def done(each: Run) -> bool:
    """Whether both sets of weights have been evaluated."""
    run = RunFolder(each.folder)
    return run.finished and run.summary["evaluation"].keys() >= {key(each, name) for name in WEIGHTS}


def finish(each: Run) -> str:
    """Train what is left of it, and evaluate it; in a process of its own."""
    if not RunFolder(each.folder).finished:
        train(each.recipe, resume="auto", output=each.folder)
    for weights in WEIGHTS:
        evaluate(each.folder, split=each.split, weights=weights)
    return each.folder.name


def figures(runs: list[Run], weights: str, metric: str) -> Values:
    """By seed, in percent, of the runs that have ended."""
    task = METRICS[metric][0]
    evaluations = {each: RunFolder(each.folder).summary.get("evaluation", {}) for each in runs}
    return {
        each.seed: found[key(each, weights)][task][metric]
        for each, found in evaluations.items()
        if key(each, weights) in found
    }


def rows(method: str) -> Iterator[list[str]]:
    """Of one method, a row for each optimiser and kind of weights."""
    reference = finals(REFERENCE, method, "raw")
    for optimiser, weights in product(OPTIMISERS, WEIGHTS):
        runs = finals(optimiser, method, weights)
        row = [method, optimiser, "yes" if weights == "ema" else "no", f"{runs[0].rate:g}"]
        for metric in METRICS:
            values = figures(runs, weights, metric)
            row += [spread(values), difference(values, figures(reference, "raw", metric))]
        yield row


def gains() -> Iterator[list[str]]:
    """What CCL has over the baseline under each setting."""
    for optimiser, weights in product(OPTIMISERS, WEIGHTS):
        ours, base = (finals(optimiser, method, weights) for method in ("ccl", "baseline"))
        pairs = ((figures(ours, weights, metric), figures(base, weights, metric)) for metric in METRICS)
        yield [optimiser, "yes" if weights == "ema" else "no", *(difference(*pair) for pair in pairs)]


def report() -> None:
    """Both tables, to the screen and to the file that the documentation reads."""
    columns = ["method", "optimiser, schedule", "moving average", "learning rate"]
    columns += [text for _, name in METRICS.values() for text in (name, f"over {REFERENCE}, no average")]
    parts = [
        "# Optimiser, schedule, moving average",
        f"`python benchmarks/defaults.py run`, then `report`; world `seed={WORLD}`, seeds {SEEDS[0]} to "
        f"{SEEDS[-1]}, 600 steps of 32 clips. Learning rates by top-1 on the val split of "
        f"`seed={SEARCH_WORLD}`, seeds {SEARCH_SEEDS[0]} and {SEARCH_SEEDS[1]}. Moving average: "
        f"decay {EMA} with warm-up. Mean ± standard deviation over seeds in percent; "
        "differences in points, seed by seed, with 95 % intervals.",
        table_text(columns, [row for method in METHODS for row in rows(method)]),
        "CCL with both teachers over the baseline, under each setting:",
        table_text(["optimiser, schedule", "moving average", "top-1", "R@1"], [*gains()]),
    ]
    text = "\n\n".join(parts) + "\n"
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    {"run": run, "report": report}[sys.argv[1]]()
