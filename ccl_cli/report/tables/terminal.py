"""Tables and comparisons for the terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Sequence

from ccl_cli.report.records.comparison import CAUTION, HEADER, Comparison, by_title
from ccl_cli.report.records.results import Results
from ccl_cli.report.tables.build import Block, Table, blocks, footer, run_lines

FILE_WIDTH = 100  # characters


def terminal_tables(
    tables: Sequence[Table], results: Results, *, plain: bool, runs: bool = False, width: int | None = None
) -> str:
    """Format tables with their explanations and notes.

    Args:
        tables: Tables to format.
        results: Results that the tables were built from.
        plain: Whether to omit rules and styles.
        runs: Whether to list the runs behind each value.
        width: Characters per line. Default: the width of the terminal.
    """
    room = width or _terminal_width()
    parts = []
    for table in tables:
        shown = blocks(table, lambda each: sum(_widths(_lines(each, "*"))) + 2 * len(each.levels) <= room)
        parts += [_terminal_block(each, plain) for each in shown]
        best = ("*" if plain else "Bold") + ": best of its column. "
        parts.append(wrapped(best * any(each.has_best for each in shown) + footer(table, results), width))
    parts += _terminal_notes(results, width)
    if runs:
        parts.append("\n".join(["Runs:", *run_lines(tables)]))
    return "\n\n".join(parts) + "\n"


def terminal_comparison(
    comparisons: Sequence[Comparison], results: Results, *, plain: bool, width: int | None = None
) -> str:
    """Format comparisons, one row each, and their conclusions; ``width`` as in :func:`terminal_tables`."""
    parts = []
    for title, same in by_title(comparisons):
        parts.append(_terminal_grid(title, [HEADER, *(each.row for each in same)], plain=plain))
        parts.append("\n".join(wrapped(each.sentence, width) for each in same))
    return "\n\n".join([*parts, wrapped(CAUTION, width), *_terminal_notes(results, width)]) + "\n"


def wrapped(text: str, width: int | None = None) -> str:
    """Wrap text; ``width`` as in :func:`terminal_tables`."""
    return textwrap.fill(text, width or _terminal_width(), break_long_words=False, break_on_hyphens=False)


def _terminal_width() -> int:
    """Width of the terminal, or ``COLUMNS``; without a terminal, the width of files."""
    return shutil.get_terminal_size((FILE_WIDTH, 24)).columns


def _lines(block: Block, mark: str) -> list[list[str]]:
    """Header and rows, with aligned decimal points; ``mark`` follows the best values."""
    columns = []
    for column in zip(*(entries for _, entries in block.rows), strict=True):
        width = max(len(each.mean) for each in column)
        columns.append([f"{e.mean:>{width}} {e.spread}".rstrip() + mark * e.best for e in column])
    labels = [label for label, _ in block.rows]
    return [block.header, *map(list, zip(labels, *columns, strict=True))]


def _terminal_block(block: Block, plain: bool) -> str:
    best = {
        (row, column)
        for row, (_, entries) in enumerate(block.rows)
        for column, each in enumerate(entries, 1)
        if each.best
    }
    return _terminal_grid(block.title, _lines(block, "*" if plain else ""), best, plain=plain)


def _terminal_grid(
    title: str, lines: Sequence[Sequence[str]], bold: Collection[tuple[int, int]] = (), *, plain: bool
) -> str:
    """Title, header and rows; ``bold``: (row, column) of bold texts."""
    if plain:
        widths = _widths(lines)
        padded = (map(str.ljust, line, widths) for line in lines)
        return "\n".join([title, *("  ".join(texts).rstrip() for texts in padded)])
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, 2, 0, 0))
    header, *rows = lines
    for place, text in enumerate(header):
        grid.add_column(Text(text), style="cyan" if place == 0 else None, no_wrap=place > 0)
    for number, line in enumerate(rows):
        grid.add_row(*(Text(t, "bold" if (number, i) in bold else "") for i, t in enumerate(line)))
    console = Console()
    with console.capture() as captured:
        console.print(Text(title, "bold"), grid)
    return captured.get().rstrip()


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _terminal_notes(results: Results, width: int | None) -> list[str]:
    return ["\n".join(wrapped(f"Note: {note}", width) for note in results.notes)] if results.notes else []
