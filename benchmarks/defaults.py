"""Which optimiser, schedule and average of the weights should a new user get? In the demo's world.

    python benchmarks/defaults.py run       # goes on where it was interrupted; half an hour on two cores
    python benchmarks/defaults.py report    # benchmarks/results/defaults.md

Every row has the same number of steps and three learning rates to choose from, by the mean top-1 of two seeds
on the val split of the world of ``seed=10``. The figures are those of the test split of another world, with
other seeds. The moving average does not touch the training, so each run is evaluated with it and without. A
difference is between runs of one seed; its interval is Student's t at 95 %, not corrected for the number of
comparisons. `ccl teachers fit` has to have made the teachers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from measuring import table_text
from studies import METRICS, command, difference, figures, finish_all, mean, spread, write_report

from ccl_cli.bench.matrix import recipe_with
from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Recipe
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
WEIGHTS = {"raw": "-raw", "ema": ""}  # and how a summary calls an evaluation: the average is published
REFERENCE = "SGD, steps"  # with raw weights: what the paper's recipes do


class Run(NamedTuple):
    """One training."""

    optimiser: str
    method: str
    rate: float
    world: int
    seed: int

    @property
    def folder(self) -> Path:
        name = f"{self.optimiser}-{self.method}-{self.rate:g}-w{self.world}-s{self.seed}"
        return runs_dir() / "defaults" / name.replace(", ", "-")

    @property
    def recipe(self) -> Recipe:
        changes: dict[str, Any] = {"data": f"synthetic?seed={self.world}", "method": {self.method: {}}}
        if self.method == "baseline":
            changes["teachers"] = []
        changes["optim"] = OPTIMISERS[self.optimiser][0] | {"lr": self.rate}
        changes["train"] = {"seed": self.seed, "ema": EMA}
        return recipe_with(load_recipe("synthetic"), changes, "defaults")

    @property
    def evaluations(self) -> dict[str, dict[str, str]]:
        split = "val" if self.world == SEARCH_WORLD else "test"
        return {f"synthetic-{split}{end}": {"split": split, "weights": name} for name, end in WEIGHTS.items()}


def search(optimiser: str, method: str) -> list[list[Run]]:
    """By learning rate, the runs that choose it."""
    rates = OPTIMISERS[optimiser][1]
    return [[Run(optimiser, method, rate, SEARCH_WORLD, seed) for seed in SEARCH_SEEDS] for rate in rates]


def finals(optimiser: str, method: str, weights: str) -> list[Run]:
    """Those of one row, at the learning rate with the best mean top-1 on the val split."""
    name = f"synthetic-val{WEIGHTS[weights]}"
    best = max(search(optimiser, method), key=lambda runs: mean(figures(runs, name, "top1")))
    return [Run(optimiser, method, best[0].rate, WORLD, seed) for seed in SEEDS]


def run() -> None:
    """Everything, two runs at a time."""
    finish_all([run for row in product(OPTIMISERS, METHODS) for runs in search(*row) for run in runs])
    rows = product(OPTIMISERS, METHODS, WEIGHTS)
    # Of a row with and without the average often the same.
    finish_all(list(dict.fromkeys(each for row in rows for each in finals(*row))))


def compared(row: tuple[str, str, str], other: tuple[str, str, str]) -> Iterator[tuple[str, str]]:
    """By metric, what a row has, and how much more than another."""
    for metric in METRICS:
        ours, theirs = (
            figures(finals(*each), f"synthetic-test{WEIGHTS[each[2]]}", metric) for each in (row, other)
        )
        yield spread(ours), difference(ours, theirs)


def rows(method: str) -> Iterator[list[str]]:
    """Of one method, a row for each optimiser and kind of weights."""
    for optimiser, weights in product(OPTIMISERS, WEIGHTS):
        row = optimiser, method, weights
        begin = [method, optimiser, "yes" if weights == "ema" else "no", f"{finals(*row)[0].rate:g}"]
        yield [*begin, *(cell for pair in compared(row, (REFERENCE, method, "raw")) for cell in pair)]


def over_baseline() -> Iterator[list[str]]:
    """What CCL has over the baseline under each setting."""
    for optimiser, weights in product(OPTIMISERS, WEIGHTS):
        pairs = compared((optimiser, "ccl", weights), (optimiser, "baseline", weights))
        yield [optimiser, "yes" if weights == "ema" else "no", *(gain for _, gain in pairs)]


def report() -> None:
    """Both tables, to the screen and to the file that the documentation reads."""
    columns = ["method", "optimiser, schedule", "moving average", "learning rate"]
    columns += [text for name in METRICS.values() for text in (name, f"over {REFERENCE}, no average")]
    write_report(
        "benchmarks/results/defaults.md",
        "# Optimiser, schedule, moving average",
        f"`python benchmarks/defaults.py run`, then `report`; world `seed={WORLD}`, seeds {SEEDS[0]} to "
        f"{SEEDS[-1]}, 600 steps of 32 clips. Learning rates by top-1 on the val split of "
        f"`seed={SEARCH_WORLD}`, seeds {SEARCH_SEEDS[0]} and {SEARCH_SEEDS[1]}. Moving average: "
        f"decay {EMA} with warm-up. Mean ± standard deviation over seeds in percent; "
        "differences in points, seed by seed, with 95 % intervals.",
        table_text(columns, [row for method in METHODS for row in rows(method)]),
        "CCL with both teachers over the baseline, under each setting:",
        table_text(["optimiser, schedule", "moving average", "top-1", "R@1"], over_baseline()),
    )


if __name__ == "__main__":
    command(run=run, report=report)
