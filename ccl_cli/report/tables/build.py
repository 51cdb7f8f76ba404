"""Tables of results like the paper's, independent of the output format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from ccl_cli.errors import DataError, UsageError
from ccl_cli.report.records import paper
from ccl_cli.report.records.results import Cell, Column, Results, columns_of
from ccl_cli.report.records.run import METRICS
from ccl_cli.utils.sentences import check_known, listed
from ccl_cli.utils.text import one_line

TITLES = {1: "Video recognition", 2: "Video retrieval", 3: "Ablation of ccl"}
MAX_COLUMNS = 9  # value columns of one table on a page
_DEFAULT_METRICS = {1: ("top1",), 2: ("r1", "r5", "r10"), 3: ("top1",)}
_TASKS = {1: "recognition", 2: "retrieval", 3: "recognition"}


@dataclass(frozen=True, eq=False)
class Table:
    """A table like one of the paper's.

    Attributes:
        number: Number of the table in the paper.
        rows: Methods.
        columns: Columns.
        cells: Cells by (row, column); without entries where there is no run.
        best: Keys (row, column) of the best means of each column, ties after rounding included.
    """

    number: int
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[str, Column], Cell]
    best: frozenset[tuple[str, Column]]

    @property
    def distinct_cells(self) -> list[Cell]:
        """Distinct cells, by row."""
        return list(dict.fromkeys(self.cells.values()))

    @property
    def seeds(self) -> int:
        """Largest number of seeds of a cell."""
        return max((cell.n for cell in self.cells.values()), default=0)


class Entry(NamedTuple):
    """A formatted value: mean ``64.9``, spread ``± 0.4 (n=2)``, and whether it is the best of its column."""

    mean: str
    spread: str = ""
    best: bool = False


@dataclass(frozen=True)
class Block:
    """A table or, if it is too wide, a part of its columns.

    Attributes:
        title: Title, including everything that all columns have in common.
        header: For each column, one text per header line.
        rows: Label and entries of each row.
    """

    title: str
    header: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]

    def header_spans(self) -> Iterator[list[tuple[str, int]]]:
        """For each header line, its texts with the number of columns that each spans."""
        for depth in range(1, len(self.header[0]) + 1):
            spans = [(path[-1], len(list(same))) for path, same in groupby(h[:depth] for h in self.header)]
            # The last line has one text per column, even if neighbours are equal.
            merged = depth < len(self.header[0])
            yield spans if merged else [(text, 1) for text, span in spans for _ in range(span)]

    def group_starts(self) -> set[int]:
        """Columns, except the first, at which the text of the first of several header lines changes."""
        if len(self.header[0]) == 1:
            return set()
        return {place for place, (left, right) in enumerate(pairwise(self.header), 1) if left[0] != right[0]}


def tables(
    results: Results, numbers: Sequence[int] = (), metrics: Sequence[str] = (), *, printed: bool = False
) -> list[Table]:
    """Build tables.

    Args:
        results: Results.
        numbers: Numbers of the paper's tables. Default: all tables that have runs.
        metrics: Metrics to show instead of the paper's.
        printed: Whether to add columns with the paper's values.

    Raises:
        UsageError: a metric is unknown, or the metrics belong to none of the tables.
        DataError: a requested table has no runs.
    """
    for metric in metrics:
        check_known("metric", metric, METRICS)
    built = []
    for number in numbers or TITLES:
        own = [metric for metric in metrics if METRICS[metric][0] == _TASKS[number]]
        if metrics and not own:
            continue
        table = _table(results, number, own or _DEFAULT_METRICS[number], printed)
        if table:
            built.append(table)
        elif numbers:
            task = "ablation" if number == 3 else _TASKS[number]
            raise DataError(
                f"No run here for table {number} ({task}).", "`ccl eval RUN` evaluates both tasks."
            )
    if not built and metrics:
        raise UsageError(
            f"{listed([METRICS[metric][1] for metric in metrics])}: not in the tables asked for.",
            "Tables 1 and 3 show recognition, table 2 retrieval.",
        )
    return built


def blocks(table: Table, fits: Callable[[Block], bool]) -> list[Block]:
    """Split a table so that its parts fit: not at all, by data set, or by data set and metric."""
    keys: list[Callable[[Column], Any]] = [
        lambda column: 0,
        lambda column: column.data,
        lambda column: (column.data, METRICS[column.metric][1]),
    ]
    for key in keys:
        parts: dict[object, list[Column]] = {}
        for column in table.columns:
            parts.setdefault(key(column), []).append(column)
        candidates = [block(table, part) for part in parts.values()]
        if all(map(fits, candidates)):
            break
    return candidates


def block(table: Table, columns: Sequence[Column]) -> Block:
    """Format the given columns of a table."""
    levels = [
        [column.data for column in columns],
        [column.setup for column in columns],
        [METRICS[column.metric][1] for column in columns],
        ["paper" if column.printed else "" for column in columns],
    ]
    shown = [texts for texts in levels if len(set(texts)) > 1] or levels[2:3]
    common = ", ".join(filter(None, (texts[0] for texts in levels[:3] if len(set(texts)) == 1)))
    return Block(
        f"Table {table.number}. {TITLES[table.number]}{common and ': '}{common} (%)",
        tuple(zip(*shown, strict=True)),
        tuple((_label(table, row), tuple(entry(table, row, each) for each in columns)) for row in table.rows),
    )


def entry(table: Table, row: str, column: Column) -> Entry:
    """Format one cell; "-" if all of its runs failed, "" if it has no runs."""
    if column.printed:
        return Entry(paper.printed_value(column.data, row, column.setup, column.metric))
    cell = table.cells.get((row, column))
    if cell is None:
        return Entry("")
    if cell.mean is None:
        return Entry("-")
    spread = [] if cell.sd is None else [f"± {cell.sd:.1f}"]
    spread += [f"(n={cell.n})"] if cell.n != table.seeds else []
    return Entry(f"{cell.mean:.1f}", " ".join(spread), (row, column) in table.best)


def footer(table: Table, results: Results) -> str:
    """Explain the values of a table."""
    spread = f"Mean ± standard deviation over {table.seeds} seeds" if table.seeds > 1 else "From one seed"
    uneven = any(cell.n not in (0, table.seeds) for cell in table.cells.values())
    where = " where no other n is given" if uneven else ""
    legend = [
        f"{letters}: {name}"
        for letters, name in sorted(results.modalities.items())
        if any(letters in column.setup for column in table.columns)
    ]
    failed = any(cell.mean is None for cell in table.cells.values())
    return "; ".join([f"{spread}{where}, in percent", *legend, *["-: no run of it succeeded"] * failed]) + "."


def run_lines(tables: Sequence[Table]) -> list[str]:
    """Runs behind each cell: seed, recipe hash and folder."""
    cells = {(c.data, c.method, c.setup): c for table in tables for c in table.distinct_cells}
    return [
        one_line(
            f"{' '.join(filter(None, key))}: "
            + "; ".join(
                [f"seed {run.seed} {run.hash} {run.folder}" for run in cell.runs]
                + [f"seed {run.seed} failed {run.folder}" for run in cell.failed]
            )
        )
        for key, cell in cells.items()
    ]


def _table(results: Results, number: int, metrics: Sequence[str], printed: bool) -> Table | None:
    rows = _rows(results, number, metrics)
    if not rows or (number == 3 and not results.ablations & set(rows)):
        return None
    columns = columns_of(results, rows, metrics)
    cells = {
        (row, column): cell
        for row in rows
        for column in columns
        if (cell := results.find(column.data, row, column.setup, column.metric))
    }
    best = frozenset(key for column in columns for key in _best(cells, column))
    if printed:
        columns = [
            column._replace(printed=theirs)
            for column in columns
            for theirs in ((False, True) if paper.has(column.data) else (False,))
        ]
    return Table(number, tuple(rows), tuple(columns), cells, best)


def _rows(results: Results, number: int, metrics: Sequence[str]) -> list[str]:
    available = {cell.method for cell in results.cells.values() if cell.metric in metrics}
    if number != 3:
        return [method for method in results.methods if method in available - results.ablations]
    order = ["baseline", *(method for method in results.methods if method in results.ablations), "ccl"]
    return [method for method in order if method in available]


def _best(cells: Mapping[tuple[str, Column], Cell], column: Column) -> list[tuple[str, Column]]:
    means = {key: round(c.mean, 1) for key, c in cells.items() if key[1] == column and c.mean is not None}
    top = max(means.values(), default=None)
    return [key for key, mean in means.items() if mean == top] if len(means) > 1 else []


def _label(table: Table, row: str) -> str:
    """Label of a row; next to columns of the paper also the paper's name, if it differs."""
    theirs = paper.printed_name(row)
    part = paper.PARTS.get(row, "") if table.number == 3 else ""
    renamed = theirs.lower() != row.lower() and any(column.printed for column in table.columns)
    return f"{part} {row}{f' ({theirs})' * renamed}".lstrip()
