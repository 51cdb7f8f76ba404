"""Where labels are few, does it help to have learnt from teachers without any first? In the demo's world.

    python benchmarks/label_free.py run       # goes on where it was interrupted; an hour or two on two cores
    python benchmarks/label_free.py report    # benchmarks/results/label_free.md

Students learn from both teachers without a label, by one method each. From each of them, and from random
weights, a classifier is then trained on the labels of a few clips of each class: the same clips for all that
share a seed, for the same number of steps. The learning rate of that is chosen for each start and number of
labels by the mean over seeds on the val split. A difference is between runs of one seed; its interval is
Student's t at 95 %, not corrected for the number of comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from measuring import table_text
from studies import METRICS, command, difference, done, figures, finish_all, mean, spread, write_report

from ccl_cli.bench.matrix import recipe_with
from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import WeightsError
from ccl_cli.training.build import load_teacher
from ccl_cli.training.fit_teacher import FitOptions, fit_teacher
from ccl_cli.utils.paths import runs_dir

SEEDS, LABELS, RATES = (0, 1, 2, 3, 4), (2, 5, 10), (0.03, 0.1)
CLASSES, STEPS, BATCH = 12, 300, 24  # of fine-tuning
SCRATCH = "random weights"
# Published options, but for fitnet's 100, which was found at a tenth of the world's learning rate.
METHODS: dict[str, dict[str, Any]] = {"fitnet": {"weight": 10.0}, "crd": {}, "queue_kl": {}, "unic": {}}
STARTS = (SCRATCH, *METHODS)
TEACHERS = {"audio:small": "sounds", "image:small": "objects"}


class Run(NamedTuple):
    """One training.

    Attributes:
        start: The method that the student has learnt by before, or ``SCRATCH``.
        seed: Of everything random, and of the choice of labelled clips.
        labels: Of each class; None: this is the training without labels.
        rate: Learning rate of fine-tuning.
    """

    start: str
    seed: int
    labels: int | None = None
    rate: float = 0.0

    @property
    def folder(self) -> Path:
        tuned = "" if self.labels is None else f"-{self.labels}-{self.rate:g}"
        return runs_dir() / "label-free" / f"{self.start.replace(' ', '-')}-s{self.seed}{tuned}"

    @property
    def recipe(self) -> Recipe:
        changes: dict[str, Any] = {"labels_per_class": self.labels or 0, "train": {"seed": self.seed}}
        if self.labels is None:
            changes["method"] = {self.start: METHODS[self.start]}
        else:
            epochs = STEPS // math.ceil(CLASSES * self.labels / BATCH)
            start = "" if self.start == SCRATCH else f"@{Run(self.start, self.seed).folder}"
            changes |= {"labels_seed": self.seed, "method": {"baseline": {}}, "teachers": []}
            changes |= {"student": f"r2plus1d_6{start}"}
            changes["optim"] = {"lr": self.rate, "warmup_epochs": epochs / 20}
            changes["train"] |= {"epochs": epochs, "batch_size": BATCH}
        return recipe_with(load_recipe("synthetic"), changes, "label_free")

    @property
    def evaluations(self) -> dict[str, dict[str, Any]]:
        if self.labels is None:
            return {"synthetic-test": {"tasks": ["retrieval", "probe"]}}
        return {"synthetic-val": {"tasks": ["recognition"], "split": "val"}, "synthetic-test": {}}


def tunings(start: str) -> list[Run]:
    """From one start, with the fewest labels first."""
    return [Run(start, seed, labels, rate) for labels, rate, seed in product(LABELS, RATES, SEEDS)]


def run() -> None:
    """Everything, two runs at a time."""
    for name, labels in TEACHERS.items():
        try:
            load_teacher(name)
        except WeightsError:
            fit_teacher(name, f"synthetic?labels={labels}", options=FitOptions(workers=0))
    finish_all([Run(method, seed) for seed, method in product(SEEDS, METHODS)])
    finish_all([each for start in STARTS for each in tunings(start)])


def best(start: str, labels: int) -> list[Run]:
    """The runs at the learning rate with the best mean on the val split."""
    by_rate = [[Run(start, seed, labels, rate) for seed in SEEDS] for rate in RATES]
    return max(by_rate, key=lambda runs: mean(figures(runs, "synthetic-val", "top1")))


def tuned_rows(labels: int) -> Iterator[list[str]]:
    """A row for each start."""
    scratch = best(SCRATCH, labels)
    for start in STARTS:
        runs = best(start, labels)
        row = [f"{labels}", start, f"{runs[0].rate:g}"]
        for metric in METRICS:
            values, others = (figures(each, "synthetic-test", metric) for each in (runs, scratch))
            row += [spread(values), "" if start == SCRATCH else difference(values, others)]
        yield row


def pretrained_rows() -> Iterator[list[str]]:
    """What the features know before any label: a row for each method."""
    for method in METHODS:
        runs = [Run(method, seed) for seed in SEEDS]
        yield [method, *(spread(figures(runs, "synthetic-test", each)) for each in ("r1", "knn", "linear"))]


def report() -> None:
    """Both tables, to the screen and to the file that the documentation reads."""
    ended = [done(each) for start in STARTS for each in tunings(start)]
    columns = ["labels of each class", "starts from", "learning rate"]
    columns += ["top-1", "over random weights", "R@1", "over random weights"]
    write_report(
        "benchmarks/results/label_free.md",
        "# Few labels, after learning without any",
        f"`python benchmarks/label_free.py run`, then `report`; {sum(ended)} of {len(ended)} runs of "
        f"fine-tuning, {STEPS} steps of {BATCH} clips each. Mean ± standard deviation over seeds in percent; "
        "differences in points, seed by seed, with 95 % intervals. R@1 searches all training clips.",
        table_text(columns, [row for labels in LABELS for row in tuned_rows(labels)]),
        "The features before fine-tuning; probes are fitted to the labels of all training clips:",
        table_text(["learnt by", "R@1", "kNN", "linear"], pretrained_rows()),
    )


if __name__ == "__main__":
    command(run=run, report=report)
