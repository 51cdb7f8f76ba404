"""The paper's tables from runs: means over seeds, in rows and columns."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ccl_cli.errors import DataError, UsageError
from ccl_cli.report import paper
from ccl_cli.report.cautions import check_one_recipe, differences, failures
from ccl_cli.report.collect import ABLATION, METRICS, Collected, Run, abbreviations, check_known, clean
from ccl_cli.utils.sentences import listed

TITLES = {1: "Video recognition", 2: "Video retrieval", 3: "Ablation of ccl"}
_USUAL = {1: ("top1",), 2: ("r1", "r5", "r10"), 3: ("top1",)}
_TASKS = {1: "recognition", 2: "retrieval", 3: "recognition"}


@dataclass(frozen=True)
class Cell:
    """One figure of a table: the same recipe over several seeds.

    Attributes:
        runs: By seed; each reached a figure.
        failed: Runs that did not.
    """

    data: str
    method: str
    setup: str
    metric: str
    runs: tuple[Run, ...]
    failed: tuple[Run, ...] = ()

    @property
    def label(self) -> str:
        """Row and column, for sentences."""
        return f"{self.method} {self.setup}".rstrip()

    @cached_property
    def values(self) -> dict[int, float]:
        """Figures in percent, by seed."""
        return {run.seed: run.figures[self.data, self.metric] for run in self.runs}

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @cached_property
    def mean(self) -> float | None:
        """Mean over seeds."""
        return statistics.fmean(self.values.values()) if self.values else None

    @cached_property
    def sd(self) -> float | None:
        """Sample standard deviation over seeds, with n - 1; None for fewer than two."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None


@dataclass(frozen=True)
class Summary:
    """All cells of some runs.

    Attributes:
        cells: By data set, method, setup and metric.
        ablations: Labels of the rows that are ablations.
        modalities: What the letters of the setups stand for.
        notes: What a reader has to know.
    """

    cells: Mapping[tuple[str, str, str, str], Cell]
    ablations: frozenset[str]
    modalities: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def datasets(self) -> list[str]:
        """Data sets, in order."""
        return sorted({cell.data for cell in self.cells.values()}, key=paper.place)

    @property
    def methods(self) -> list[str]:
        """Rows, in the paper's order."""
        return sorted({cell.method for cell in self.cells.values()}, key=_place)

    def find(self, data: str, method: str, setup: str, metric: str) -> Cell | None:
        """A cell; a method without teachers stands in every column."""
        return self.cells.get((data, method, setup, metric)) or self.cells.get((data, method, "", metric))


@dataclass(frozen=True, order=True)
class Column:
    """A column of figures; ``printed``: the paper's own."""

    data: str
    setup: str
    metric: str
    printed: bool = False


@dataclass(frozen=True)
class Table:
    """One of the paper's tables.

    Attributes:
        number: Its number there.
        rows: Labels, in order.
        columns: In order.
        cells: By row and column; absent where there is no run.
        best: The row and column of the best means; equal when they look equal.
        seeds: The usual number of seeds.
    """

    number: int
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[str, Column], Cell]
    best: frozenset[tuple[str, Column]]
    seeds: int

    @property
    def distinct(self) -> list[Cell]:
        """Each cell once, by row."""
        return list({id(cell): cell for cell in self.cells.values()}.values())

    @property
    def uneven(self) -> bool:
        """Whether some cells have another number of seeds."""
        return any(cell.n not in (0, self.seeds) for cell in self.distinct)


def summarise(collected: Collected) -> Summary:
    """Group runs into cells.

    Raises:
        UsageError: runs with one label come from different recipes.
    """
    groups: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in collected.runs:
        for data in run.manifests:
            groups[data, run.method, run.setup].append(run)
    for (data, _, _), runs in groups.items():
        check_one_recipe(data, runs)
    failed = _failed(collected)
    cells = {}
    for key in [*groups, *(key for key in failed if key not in groups)]:
        runs = sorted(groups.get(key, ()), key=lambda run: run.seed)
        for metric in _metrics_of(collected.runs, key[0]):
            having = tuple(run for run in runs if (key[0], metric) in run.figures)
            if having or failed.get(key):
                cells[(*key, metric)] = Cell(*key, metric, having, tuple(failed.get(key, ())))
    everything = [*collected.runs, *collected.failed]
    notes = [*collected.notes, *failures(collected.failed), *differences(groups)]
    return Summary(
        cells,
        frozenset(run.method for run in everything if run.table == ABLATION),
        {
            short: name
            for name, short in abbreviations(m for run in everything for m in run.modalities).items()
        },
        tuple(map(clean, notes)),
    )


def tables(
    summary: Summary, numbers: Sequence[int] = (), metrics: Sequence[str] = (), *, printed: bool = False
) -> list[Table]:
    """The tables that were asked for.

    Args:
        summary: Runs.
        numbers: Of the paper's tables; none: those for which there are runs.
        metrics: Instead of the usual ones.
        printed: Whether to put the paper's figures beside ours.

    Raises:
        UsageError: an unknown metric, or the metrics belong to none of the tables.
        DataError: no run for a table.
    """
    for metric in metrics:
        check_known("metric", metric, METRICS)
    built = []
    for number in numbers or TITLES:
        own = [metric for metric in metrics if METRICS[metric][0] == _TASKS[number]]
        if metrics and not own:
            continue
        table = _table(summary, number, own or _USUAL[number], printed)
        if table:
            built.append(table)
        elif numbers:
            what = "ablation" if number == 3 else _TASKS[number]
            raise DataError(
                f"No run here for table {number} ({what}).", "`ccl eval RUN` evaluates both tasks."
            )
    if not built and metrics:
        raise UsageError(
            f"{listed([METRICS[metric][1] for metric in metrics])}: not in the tables asked for.",
            "Tables 1 and 3 show recognition, table 2 retrieval.",
        )
    return built


def _table(summary: Summary, number: int, metrics: Sequence[str], printed: bool) -> Table | None:
    rows = _rows(summary, number, metrics)
    if not rows or (number == 3 and not summary.ablations & set(rows)):
        return None
    columns = _columns(summary, rows, metrics)
    found = {
        (row, column): cell
        for row in rows
        for column in columns
        if (cell := summary.find(column.data, row, column.setup, column.metric))
    }
    seeds = max((cell.n for cell in found.values()), default=0)
    best = frozenset(key for column in columns for key in _best(found, column))
    if printed:
        columns = [
            Column(column.data, column.setup, column.metric, theirs)
            for column in columns
            for theirs in ((False, True) if paper.has(column.data) else (False,))
        ]
    return Table(number, tuple(rows), tuple(columns), found, best, seeds)


def _rows(summary: Summary, number: int, metrics: Sequence[str]) -> list[str]:
    there = {cell.method for cell in summary.cells.values() if cell.metric in metrics}
    if number != 3:
        return [method for method in summary.methods if method in there - summary.ablations]
    wanted = ["baseline", *(m for m in summary.methods if m in summary.ablations), "ccl"]
    return [method for method in wanted if method in there]


def _columns(summary: Summary, rows: Sequence[str], metrics: Sequence[str]) -> list[Column]:
    columns = []
    for data in summary.datasets:
        cells = [c for c in summary.cells.values() if c.data == data and c.method in rows]
        setups = sorted({cell.setup for cell in cells}, key=lambda setup: (len(setup), setup))
        named = [setup for setup in setups if setup] or setups
        shown = [metric for metric in metrics if any(cell.metric == metric for cell in cells)]
        columns += [Column(data, setup, metric) for setup in named for metric in shown]
    return columns


def _best(cells: Mapping[tuple[str, Column], Cell], column: Column) -> list[tuple[str, Column]]:
    means = {key: round(c.mean, 1) for key, c in cells.items() if key[1] == column and c.mean is not None}
    top = max(means.values(), default=None)
    return [key for key, mean in means.items() if mean == top] if len(means) > 1 else []


def _place(method: str) -> tuple[int, str]:
    order = [*paper.METHODS, *paper.ABLATIONS]
    return (order.index(method) if method in order else len(order), method)


def _metrics_of(runs: Iterable[Run], data: str) -> list[str]:
    there = {metric for run in runs for of, metric in run.figures if of == data}
    return [metric for metric in METRICS if metric in there]


def _failed(collected: Collected) -> dict[tuple[str, str, str], list[Run]]:
    """Failed runs by cell; the runs beside them tell which data they were for."""
    failed: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in collected.failed:
        beside = [other for other in collected.runs if other.folder.parent == run.folder.parent]
        for data in sorted({data for other in beside or collected.runs for data in other.manifests}):
            failed[data, run.method, run.setup].append(run)
    return failed
