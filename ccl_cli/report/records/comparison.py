"""Comparison of two methods, paired by seed: mean difference, Student's t interval and a verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from ccl_cli.errors import UsageError
from ccl_cli.report.records.results import Column, Results, columns_of
from ccl_cli.report.records.run import METRICS
from ccl_cli.utils.sentences import check_known

CONFIDENCE = 0.95
CAUTION = (
    "Intervals are Student's t intervals of the differences between runs with the same seed. They describe "
    "the variation over seeds, not over videos. The p values are not corrected for multiple comparisons."
)
HEADER = ("setup", "difference", "95 % interval", "p", "seeds", "won/tied/lost")
_ROUNDING = 1e-9  # percentage points


@dataclass(frozen=True)
class Comparison:
    """Difference of two methods in one column, over their common seeds.

    Attributes:
        differences: First method minus second, in percentage points, by seed.
        unpaired: Seeds of only one of the two methods.
    """

    data: str
    setup: str
    metric: str
    first: str
    second: str
    differences: dict[int, float]
    unpaired: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.differences)

    @cached_property
    def mean(self) -> float | None:
        """Mean difference."""
        return statistics.fmean(self.differences.values()) if self.n else None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean difference; None for one seed or equal differences."""
        return t_interval(list(self.differences.values()))

    @cached_property
    def p(self) -> float | None:
        """Two-sided p value of the hypothesis "no difference"; None without an interval."""
        error = _standard_error(list(self.differences.values()))
        if self.mean is None or error is None:
            return None
        from scipy.special import stdtr  # scipy.stats takes 47 MB and 0.3 s

        return 2 * float(stdtr(self.n - 1, -abs(self.mean) / error))

    @property
    def clear_of_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    @property
    def wins_ties_losses(self) -> tuple[int, int, int]:
        """Number of seeds in which the first method is better, equal and worse."""
        signs = [(value > 0) - (value < 0) for value in self.differences.values()]
        return signs.count(1), signs.count(0), signs.count(-1)

    @property
    def title(self) -> str:
        """Title of the table of comparisons on one data set."""
        name = METRICS[self.metric][1]
        return f"{self.first} minus {self.second} on {self.data}, {name} (percentage points)"

    @property
    def row(self) -> list[str]:
        """Table row under :data:`HEADER`."""
        p = "" if self.p is None else f"{self.p:.3f}" if self.p >= 0.0005 else "< 0.001"
        counts = "/".join(map(str, self.wins_ties_losses))
        return [self.setup or "-", *self.texts(2), p, str(self.n), counts]

    def texts(self, digits: int) -> list[str]:
        """Format mean difference and interval; empty texts where they do not exist."""
        if self.mean is None:
            return ["", ""]
        mean, *interval = [f"{number:+.{digits}f}" for number in (self.mean, *(self.interval or ()))]
        return [mean, " to ".join(interval)]

    @property
    def sentence(self) -> str:
        """Conclusion that these runs support."""
        if not self.unpaired:
            return self._verdict
        seeds = ", ".join(map(str, self.unpaired))
        have = f"Seeds {seeds} have" if len(self.unpaired) > 1 else f"Seed {seeds} has"
        return f"{self._verdict} {have} no partner."

    @property
    def _verdict(self) -> str:
        where = f" in {self.setup}" if self.setup else ""
        if self.mean is None or self.n < 2:
            share = "only one seed" if self.n else "no seed"
            return f"{self.first} and {self.second} share {share}{where}; an interval needs at least two."
        if self.interval is None:
            return (
                f"All {self.n} seeds give the same difference{where}, {self.mean:+.1f} points: "
                "without a spread there is no interval."
            )
        if not self.clear_of_zero:
            return f"These {self.n} seeds do not tell {self.first} and {self.second} apart{where}."
        better, worse = (self.first, self.second) if self.mean > 0 else (self.second, self.first)
        near, far = sorted(map(abs, self.interval))
        return (
            f"{better} is better than {worse}{where}, by {near:.1f} to {far:.1f} points "
            f"(95 % confidence, {self.n} seeds)."
        )


def compare(
    results: Results, first: str, second: str, metric: str = "top1", setups: Sequence[str] = ()
) -> list[Comparison]:
    """Compare two methods in every column in which one of them has results.

    Args:
        results: Results that contain both methods.
        first: First method, as labelled in the tables.
        second: Second method.
        metric: Compared metric.
        setups: Compared setups. Default: all.

    Raises:
        UsageError: a setup or the metric does not exist.
    """
    check_known("metric", metric, METRICS)
    columns = columns_of(results, (first, second), [metric])
    if not columns:
        raise UsageError(f"These runs have no {METRICS[metric][1]}.", "`ccl eval RUN` evaluates both tasks.")
    for setup in setups:
        check_known("setup", setup, [column.setup for column in columns])
    return [
        _compare(results, column, first, second) for column in columns if not setups or column.setup in setups
    ]


def against_baseline(
    results: Results, methods: Sequence[str], baseline: str, metrics: Sequence[str]
) -> list[list[str]]:
    """Differences to the baseline: a header, and one row of texts per method and setup."""
    pairs = {
        (method, pair.setup, metric): pair
        for method in methods
        for metric in metrics
        if any((cell.method, cell.metric) == (method, metric) for cell in results.cells.values())
        for pair in compare(results, method, baseline, metric)
    }
    header = ["method", "setup", *(text for name in metrics for text in (METRICS[name][1], "95 % interval"))]
    rows = []
    for method, setup in dict.fromkeys((method, setup) for method, setup, _ in pairs):
        in_metrics = [pairs.get((method, setup, metric)) for metric in metrics]
        texts = [text for pair in in_metrics for text in (pair.texts(1) if pair else ["", ""])]
        rows.append([method, setup or "-", *texts])
    return [header, *rows]


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's t interval (95 %) of the mean; None for one value or equal values."""
    error = _standard_error(values)
    if error is None:
        return None
    from scipy.special import stdtrit

    mean, margin = statistics.fmean(values), error * float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return mean - margin, mean + margin


def by_title(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """Group consecutive comparisons that share a table."""
    for title, same in groupby(comparisons, key=lambda each: each.title):
        yield title, list(same)


def _standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean; None for one value or equal values."""
    if len(values) < 2 or (deviation := statistics.stdev(values)) <= _ROUNDING:
        return None
    return deviation / math.sqrt(len(values))


def _compare(results: Results, column: Column, first: str, second: str) -> Comparison:
    data, setup, metric, _ = column
    cells = (results.find(data, method, setup, metric) for method in (first, second))
    minuend, subtrahend = (cell.values if cell else {} for cell in cells)
    paired = sorted(minuend.keys() & subtrahend.keys())
    differences = {seed: minuend[seed] - subtrahend[seed] for seed in paired}
    unpaired = tuple(sorted(minuend.keys() ^ subtrahend.keys()))
    return Comparison(data, setup, metric, first, second, differences, unpaired)
