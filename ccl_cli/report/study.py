"""What a page is about: the runs, the figures, and which of them are looked at closely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ccl_cli.report import paper
from ccl_cli.report.collect import METRICS, Collected, Run, collect
from ccl_cli.report.style import LIGHT, SERIES
from ccl_cli.report.table import Cell, Summary, summarise

BASELINE = "baseline"


@dataclass(frozen=True)
class Study:
    """Runs and their figures on one data set.

    Attributes:
        data: The data set that is looked at closely: the one that most runs were evaluated on.
        metric: The figure by which methods are ranked.
        split: Whose evaluation was read.
    """

    collected: Collected
    summary: Summary
    data: str
    metric: str
    split: str

    @cached_property
    def best(self) -> Cell:
        """The highest mean of a method with teachers, ablations aside; of any, if there is no such method."""
        cells = [cell for cell in self.cells() if cell.mean is not None]
        taught = [c for c in cells if c.method not in {BASELINE, *self.summary.ablations}]
        return max(taught or cells, key=lambda cell: cell.mean or 0.0)

    @property
    def baseline(self) -> Cell | None:
        """The student alone, unless it is the best there is."""
        found = self.summary.find(self.data, BASELINE, "", self.metric)
        return found if found and found.runs and found is not self.best else None

    @property
    def shown(self) -> Run:
        """The run whose videos are looked at: the best method's first seed."""
        return self.best.runs[0]

    @property
    def setups(self) -> list[str]:
        """Columns, the paper's first."""
        found = {cell.setup for cell in self.cells() if cell.runs}
        return sorted(found - {""} or found, key=lambda setup: (len(setup), setup))

    @property
    def runs(self) -> list[Run]:
        """The data set's runs, in the tables' order."""
        return [run for cell in self.cells() for run in cell.runs]

    def cells(self, setup: str | None = None) -> list[Cell]:
        """Methods in the tables' order; of one setup, together with what needs no teachers."""
        found = [
            cell
            for cell in self.summary.cells.values()
            if (cell.data, cell.metric) == (self.data, self.metric)
            and (setup is None or cell.setup in (setup, ""))
        ]
        return sorted(found, key=lambda c: (self.summary.methods.index(c.method), len(c.setup), c.setup))

    def colour(self, method: str) -> str:
        """A method's colour, the same in all plots."""
        return LIGHT[self.colour_name(method)]

    def colour_name(self, method: str) -> str:
        """What that colour is called."""
        if method == BASELINE:
            return "ink"
        known = ["ccl", *(name for name in paper.METHODS if name not in ("ccl", BASELINE))]
        known += [name for name in self.summary.methods if name not in (*known, BASELINE)]
        return f"s{known.index(method) % SERIES}"


def study(paths: Sequence[Path] = (), split: str = "test") -> Study:
    """Read runs.

    Raises:
        DataError: nothing evaluated there.
        UsageError: runs under one label that must not be averaged.
    """
    collected = collect(paths, split)
    summary = summarise(collected)
    counts = {data: sum(data in run.manifests for run in collected.runs) for data in summary.datasets}
    data = max(counts, key=lambda name: counts[name])
    there = {metric for run in collected.runs for of, metric in run.figures if of == data}
    metric = next(metric for metric in METRICS if metric in there)
    return Study(collected, summary, data, metric, split)
