"""Two methods compared seed by seed: mean difference, Student's t interval, and what may be said."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

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
        if self.mean is None or self._error is None:
            return None
        half = t_quantile((1 + CONFIDENCE) / 2, self.n - 1) * self._error
        return self.mean - half, self.mean + half

    @cached_property
    def p(self) -> float | None:
        """Two-sided p value of "no difference"; None without an interval."""
        if self.mean is None or self._error is None:
            return None
        return t_two_sided(self.mean / self._error, self.n - 1)

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

    @cached_property
    def _error(self) -> float | None:
        """Standard error of the mean difference; None if there is no spread."""
        if self.n < 2:
            return None
        sd = statistics.stdev(self.differences.values())
        return sd / math.sqrt(self.n) if sd > _ROUNDING else None


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


def t_quantile(share: float, freedom: int) -> float:
    """The value below which Student's t falls with this probability."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def t_two_sided(t: float, freedom: int) -> float:
    """Probability of a t at least this far from zero."""
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(t)))


def _pair(summary: Summary, data: str, setup: str, metric: str, first: str, second: str) -> Paired:
    ours, theirs = (_values(summary.find(data, method, setup, metric)) for method in (first, second))
    common = sorted(ours.keys() & theirs.keys())
    differences = {seed: ours[seed] - theirs[seed] for seed in common}
    lonely = tuple(sorted(ours.keys() ^ theirs.keys()))
    return Paired(data, setup, metric, first, second, differences, lonely)


def _row(pair: Paired) -> list[str]:
    mean = "" if pair.mean is None else f"{pair.mean:+.2f}"
    interval = "" if pair.interval is None else "{:+.2f} to {:+.2f}".format(*pair.interval)
    p = "" if pair.p is None else f"{pair.p:.3f}" if pair.p >= 0.0005 else "< 0.001"
    return [pair.setup or "-", mean, interval, p, str(pair.n), "/".join(map(str, pair.wins_ties_losses))]


def _values(cell: Cell | None) -> dict[int, float]:
    return cell.values if cell else {}
