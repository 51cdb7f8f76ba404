"""Tables of results like the paper's, independent of the output format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

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
    """

    number: int
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[str, Column], Cell]

    @property
    def distinct_cells(self) -> list[Cell]:
        """Distinct cells, by row."""
        return list(dict.fromkeys(self.cells.values()))

    @property
    def seeds(self) -> int:
        """Largest number of seeds of a cell."""
        return max((cell.n for cell in self.cells.values()), default=0)

    def best(self, column: Column) -> float | None:
        """Highest mean of a column, rounded; None with fewer than two means."""
        cells = [cell for key, cell in self.cells.items() if key[1] == column]
        means = [round(cell.mean, 1) for cell in cells if cell.mean is not None]
        return max(means) if len(means) > 1 else None


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
        levels: For each column, its texts from the outermost group to the column itself.
        rows: Label and entries of each row.
    """

    title: str
    levels: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]

    @property
    def header(self) -> list[str]:
        """Name of the rows, and of each column."""
        return ["method", *(" ".join(filter(None, texts)) for texts in self.levels)]

    @property
    def has_best(self) -> bool:
        """Whether an entry is the best of its column."""
        return any(entry.best for _, entries in self.rows for entry in entries)


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
        if table is None and numbers:
            raise DataError(
                f"No run here for table {number} ({TITLES[number]}).", "`ccl eval RUN` evaluates both tasks."
            )
        built += [table] if table else []
    if not built and metrics:
        raise UsageError(
            f"{listed([METRICS[metric][1] for metric in metrics])}: not in the tables asked for.",
            "Tables 1 and 3 show recognition, table 2 retrieval.",
        )
    return built


def blocks(table: Table, fits: Callable[[Block], bool]) -> list[Block]:
    """Split a table so that its parts fit: not at all, by data set, or by data set and metric."""
    parts: list[Block] = []
    for depth in range(3):
        keys = {column: (column.data, METRICS[column.metric][1])[:depth] for column in table.columns}
        in_order = sorted(
            table.columns, key=lambda column: list(dict.fromkeys(keys.values())).index(keys[column])
        )
        parts = [block(table, tuple(same)) for _, same in groupby(in_order, key=keys.__getitem__)]
        if all(map(fits, parts)):
            break
    return parts


def block(table: Table, columns: Sequence[Column]) -> Block:
    """Format the given columns of a table."""
    levels = [
        [column.data for column in columns],
        [column.setup for column in columns],
        [METRICS[column.metric][1] for column in columns],
        ["paper" if column.printed else "" for column in columns],
    ]
    shown = [texts for texts in levels if len(set(texts)) > 1] or levels[2:3]
    common = ", ".join(texts[0] for texts in levels[:3] if len(set(texts)) == 1 and texts[0])
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
    if cell is None or cell.mean is None:
        return Entry("-" if cell else "")
    spread = [] if cell.sd is None else [f"± {cell.sd:.1f}"]
    spread += [f"(n={cell.n})"] if cell.n != table.seeds else []
    return Entry(f"{cell.mean:.1f}", " ".join(spread), round(cell.mean, 1) == table.best(column))


def footer(table: Table, results: Results) -> str:
    """Explain the values of a table."""
    cells = table.cells.values()
    spread = f"Mean ± standard deviation over {table.seeds} seeds" if table.seeds > 1 else "From one seed"
    where = " where no other n is given" if any(cell.n not in (0, table.seeds) for cell in cells) else ""
    failed = ["-: no run of it succeeded"] if any(cell.mean is None for cell in cells) else []
    shown = results.letters(column.setup for column in table.columns)
    return "; ".join([f"{spread}{where}, in percent", *shown, *failed]) + "."


def run_lines(tables: Sequence[Table]) -> list[str]:
    """Runs behind each cell: seed, recipe hash and folder."""
    cells = {(c.data, c.method, c.setup): c for table in tables for c in table.distinct_cells}
    lines = []
    for key, cell in cells.items():
        runs = [f"seed {run.seed} {run.hash} {run.folder}" for run in cell.runs]
        runs += [f"seed {run.seed} failed {run.folder}" for run in cell.failed]
        lines.append(one_line(f"{' '.join(filter(None, key))}: {'; '.join(runs)}"))
    return lines


def _table(results: Results, number: int, metrics: Sequence[str], printed: bool) -> Table | None:
    rows = _rows(results, number, metrics)
    if not rows or (number == 3 and not results.ablations & set(rows)):
        return None
    columns = columns_of(results, rows, metrics)
    found = {
        (row, column): results.find(column.data, row, column.setup, column.metric)
        for row in rows
        for column in columns
    }
    if printed:
        theirs = {column: [column._replace(printed=True)] * paper.has(column.data) for column in columns}
        columns = [each for column in columns for each in (column, *theirs[column])]
    return Table(number, tuple(rows), tuple(columns), {key: cell for key, cell in found.items() if cell})


def _rows(results: Results, number: int, metrics: Sequence[str]) -> list[str]:
    available = {cell.method for cell in results.cells.values() if cell.metric in metrics}
    if number != 3:
        return [method for method in results.methods if method in available - results.ablations]
    order = ["baseline", *(method for method in results.methods if method in results.ablations), "ccl"]
    return [method for method in order if method in available]


def _label(table: Table, row: str) -> str:
    """Label of a row; next to columns of the paper also the paper's name, if it differs."""
    theirs = paper.printed_name(row)
    part = paper.PARTS.get(row, "") if table.number == 3 else ""
    renamed = theirs.lower() != row.lower() and any(column.printed for column in table.columns)
    return f"{part} {row}{f' ({theirs})' * renamed}".lstrip()
