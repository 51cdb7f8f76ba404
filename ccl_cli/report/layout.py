"""How a table is laid out, whatever it is written as: what stands in each place, and what fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ccl_cli.report import paper
from ccl_cli.report.collect import METRICS, clean
from ccl_cli.report.table import TITLES, Column, Summary, Table


@dataclass(frozen=True)
class Entry:
    """One figure as it is written: ``64.9``, ``± 0.4 (n=2)``, and whether it is the best of its column."""

    mean: str
    spread: str = ""
    best: bool = False


@dataclass(frozen=True)
class Block:
    """A table, or the part of it that fits.

    Attributes:
        title: What all columns have in common.
        header: By column: one text for each line of the header.
        labels: By row.
        entries: By row, then by column.
    """

    title: str
    header: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    entries: tuple[tuple[Entry, ...], ...]


def blocks(table: Table, fits: Callable[[Block], bool], named: bool = False) -> list[Block]:
    """The table whole, or by data set, or by data set and metric: the first that fits.

    Args:
        table: A table.
        fits: Whether a block does.
        named: Whether to show the paper's names of rows that are called otherwise here.
    """
    keys: list[Callable[[Column], object]] = [
        lambda column: 0,
        lambda column: column.data,
        lambda column: (column.data, METRICS[column.metric][1]),
    ]
    found: list[Block] = []
    for key in keys:
        parts: dict[object, list[Column]] = {}
        for column in table.columns:
            parts.setdefault(key(column), []).append(column)
        found = [lay_out(table, part, named) for part in parts.values()]
        if all(map(fits, found)):
            break
    return found


def entry(table: Table, row: str, column: Column) -> Entry:
    """The figure of a row and a column; "-" for what did not converge, "" where there is no run."""
    if column.printed:
        return Entry(paper.figure(column.data, row, column.setup, column.metric))
    cell = table.cells.get((row, column))
    if cell is None:
        return Entry("")
    if cell.mean is None:
        return Entry("-")
    spread = [] if cell.sd is None else [f"± {cell.sd:.1f}"]
    spread += [f"(n={cell.n})"] if cell.n != table.seeds else []
    return Entry(f"{cell.mean:.1f}", " ".join(spread), (row, column) in table.best)


def footer(table: Table, summary: Summary) -> str:
    """How the figures of a table are to be read."""
    seeds = f"{table.seeds} seeds" if table.seeds > 1 else "one seed"
    what = f"Mean ± standard deviation over {seeds}" if table.seeds > 1 else f"From {seeds}"
    where = " where no other n is given" if table.uneven else ""
    setups = [column.setup for column in table.columns]
    legend = [
        f"{short}: {name}"
        for short, name in sorted(summary.modalities.items())
        if any(short in setup for setup in setups)
    ]
    failed = ["-: no run of it succeeded"] if any(cell.mean is None for cell in table.distinct) else []
    return "; ".join([f"{what}{where}, in percent", *legend, *failed]) + "."


def run_lines(found: Sequence[Table]) -> list[str]:
    """Each cell with its figures' runs: seed, recipe hash, folder."""
    cells = {(c.data, c.method, c.setup): c for table in found for c in table.distinct}
    return [
        clean(
            f"{' '.join(filter(None, [data, method, setup]))}: "
            + "; ".join(
                [f"seed {run.seed} {run.hash} {run.folder}" for run in cell.runs]
                + [f"seed {run.seed} failed {run.folder}" for run in cell.failed]
            )
        )
        for (data, method, setup), cell in cells.items()
    ]


def lay_out(table: Table, columns: Sequence[Column], named: bool = False) -> Block:
    """The given columns of a table."""
    levels = [
        [column.data for column in columns],
        [column.setup for column in columns],
        [METRICS[column.metric][1] for column in columns],
        ["paper" if column.printed else "" for column in columns],
    ]
    shown = [texts for texts in levels if len(set(texts)) > 1] or levels[2:3]
    common = ", ".join(filter(None, (texts[0] for texts in levels[:3] if len(set(texts)) == 1)))
    ours = [[entry(table, row, column) for column in columns] for row in table.rows]
    return Block(
        f"Table {table.number}. {TITLES[table.number]}{common and ': '}{common} (%)",
        tuple(zip(*shown, strict=True)),
        tuple(_named(table, row, named) for row in table.rows),
        tuple(tuple(row) for row in ours),
    )


def _named(table: Table, row: str, named: bool) -> str:
    theirs = paper.printed(row)
    known_otherwise = named and any(c.printed for c in table.columns) and theirs.lower() != row.lower()
    part = paper.PARTS.get(row, "") if table.number == 3 else ""
    return f"{part} {row} ({theirs})".lstrip() if known_otherwise else f"{part} {row}".lstrip()
