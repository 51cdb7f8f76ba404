"""Two methods compared seed by seed: mean difference, Student's t interval, and a verdict in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from ccl_cli.errors import UsageError
from ccl_cli.report.collect import METRICS, Collected, check_known
from ccl_cli.report.table import Cell, Summary

CONFIDENCE = 0.95
CAUTION = (
    "Student's t on the differences between runs of one seed: it speaks of the spread over seeds, on one "
    "list of videos. The p values are not corrected for the number of comparisons."
)
_ROUNDING = 1e-9  # percentage points


@dataclass(frozen=True)
class Paired:
    """One method against another in one column, over the seeds they have in common.

    Attributes:
        differences: First minus second, in percentage points, by seed.
        lonely: Seeds that only one of the two has.
    """

    data: str
    setup: str
    metric: str
    first: str
    second: str
    differences: dict[int, float]
    lonely: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.differences)

    @cached_property
    def mean(self) -> float | None:
        """Mean difference."""
        return statistics.fmean(self.differences.values()) if self.n else None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean difference; None without a spread to build it on."""
        return t_interval(list(self.differences.values()))

    @cached_property
    def p(self) -> float | None:
        """Two-sided p value of "no difference"; None without an interval."""
        test = _t_test(list(self.differences.values()))
        return None if test is None else float(test.pvalue)

    @property
    def wins_ties_losses(self) -> tuple[int, int, int]:
        """Of the first method."""
        signs = [(value > 0) - (value < 0) for value in self.differences.values()]
        return signs.count(1), signs.count(0), signs.count(-1)

    @property
    def sentence(self) -> str:
        """What these runs allow to say, and no more."""
        return f"{self._verdict} {self._unpaired}".rstrip()

    @property
    def _unpaired(self) -> str:
        if not self.lonely:
            return ""
        several = len(self.lonely) > 1
        seeds = ", ".join(map(str, self.lonely))
        return f"Seed{'s' * several} {seeds} {'have' if several else 'has'} no partner."

    @property
    def _verdict(self) -> str:
        where = f" in {self.setup}" if self.setup else ""
        if self.mean is None or self.n < 2:
            have, lacking = ("one seed", "one is") if self.n else ("no seed", "two are")
            return (
                f"{self.first} and {self.second} have {have} in common{where}; "
                f"an interval needs at least two: {lacking} lacking."
            )
        if self.interval is None:
            return (
                f"All {self.n} seeds give the same difference{where}, {self.mean:+.1f} points: "
                "without a spread there is no interval."
            )
        low, high = self.interval
        if low <= 0 <= high:
            return f"These {self.n} seeds do not tell {self.first} and {self.second} apart{where}."
        better, worse = (self.first, self.second) if self.mean > 0 else (self.second, self.first)
        between = f"{min(abs(low), abs(high)):.1f} to {max(abs(low), abs(high)):.1f}"
        return (
            f"{better} is better than {worse}{where}, by {between} points (95 % confidence, {self.n} seeds)."
        )


def only(collected: Collected, first: str, second: str) -> Collected:
    """The runs of two methods; what is wrong with others does not matter.

    Raises:
        UsageError: a method without runs, or the same twice.
    """
    everyone = [*collected.runs, *collected.failed]
    for label in (first, second):
        check_known("method", label, (run.method for run in everyone))
    if first == second:
        raise UsageError(f"'{first}' is compared with itself.", "Name two methods.")
    runs, failed = (
        tuple(run for run in some if run.method in (first, second))
        for some in (collected.runs, collected.failed)
    )
    return Collected(runs, failed, collected.notes)


def compare(
    summary: Summary, first: str, second: str, metric: str = "top1", setups: Sequence[str] = ()
) -> list[Paired]:
    """Compare two rows in every column that one of them has.

    Args:
        summary: Of the runs of both.
        first: Label of a row.
        second: Label of another.
        metric: The figure compared.
        setups: Only these columns.

    Raises:
        UsageError: no such column or figure.
    """
    check_known("metric", metric, METRICS)
    found = []
    for data in summary.datasets:
        cells = [
            cell
            for cell in summary.cells.values()
            if (cell.data, cell.metric) == (data, metric) and cell.method in (first, second)
        ]
        named = sorted({cell.setup for cell in cells} - {""}, key=lambda setup: (len(setup), setup))
        for setup in named or ([""] if cells else []):
            found.append((data, setup))
    if not found:
        raise UsageError(f"These runs have no {METRICS[metric][1]}.", "`ccl eval RUN` evaluates both tasks.")
    for wanted in setups:
        check_known("setup", wanted, [setup for _, setup in found])
    return [
        _pair(summary, data, setup, metric, first, second)
        for data, setup in found
        if not setups or setup in setups
    ]


def by_data(pairs: Sequence[Paired]) -> list[list[Paired]]:
    """Comparisons of each data set."""
    return [list(same) for _, same in groupby(pairs, key=lambda pair: pair.data)]


def title(pairs: Sequence[Paired]) -> str:
    """What is compared on one data set."""
    pair = pairs[0]
    return f"{pair.first} minus {pair.second} on {pair.data}, {METRICS[pair.metric][1]} (percentage points)"


def rows(pairs: Sequence[Paired]) -> list[list[str]]:
    """A header, and one row of texts for each column compared."""
    header = ["setup", "difference", "95 % interval", "p", "seeds", "won/tied/lost"]
    return [header, *map(_row, pairs)]


def side_by_side(
    summary: Summary, methods: Sequence[str], second: str, metrics: Sequence[str]
) -> list[list[str]]:
    """A header, and a row of texts for each method and column: by how much it differs in each metric."""
    pairs = {
        (method, pair.setup, metric): pair
        for method in methods
        for metric in metrics
        if any((cell.method, cell.metric) == (method, metric) for cell in summary.cells.values())
        for pair in compare(summary, method, second, metric)
    }
    header = ["method", "setup"]
    for metric in metrics:
        header += [METRICS[metric][1], "95 % interval"]
    places = dict.fromkeys((method, setup) for method, setup, _ in pairs)
    rows = [[method, setup or "-"] for method, setup in places]
    for row, place in zip(rows, places, strict=True):
        for metric in metrics:
            row += _texts(pairs.get((*place, metric)), 1)
    return [header, *rows]


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's t interval of the mean at 95 %; None without a spread."""
    test = _t_test(values)
    if test is None:
        return None
    low, high = test.confidence_interval(CONFIDENCE)
    return float(low), float(high)


def _t_test(values: Sequence[float]) -> Any:
    """The mean against zero, which for differences is the paired test; None without a spread."""
    if len(values) < 2 or statistics.stdev(values) <= _ROUNDING:
        return None
    from scipy import stats

    return stats.ttest_1samp(values, 0.0)


def _pair(summary: Summary, data: str, setup: str, metric: str, first: str, second: str) -> Paired:
    ours, theirs = (_values(summary.find(data, method, setup, metric)) for method in (first, second))
    common = sorted(ours.keys() & theirs.keys())
    differences = {seed: ours[seed] - theirs[seed] for seed in common}
    lonely = tuple(sorted(ours.keys() ^ theirs.keys()))
    return Paired(data, setup, metric, first, second, differences, lonely)


def _row(pair: Paired) -> list[str]:
    p = "" if pair.p is None else f"{pair.p:.3f}" if pair.p >= 0.0005 else "< 0.001"
    seeds = [str(pair.n), "/".join(map(str, pair.wins_ties_losses))]
    return [pair.setup or "-", *_texts(pair, 2), p, *seeds]


def _texts(pair: Paired | None, digits: int) -> list[str]:
    """The mean difference and its interval, where there are any."""
    if pair is None or pair.mean is None:
        return ["", ""]
    numbers = [f"{number:+.{digits}f}" for number in (pair.mean, *(pair.interval or ()))]
    return [numbers[0], " to ".join(numbers[1:])]


def _values(cell: Cell | None) -> dict[int, float]:
    return cell.values if cell else {}
