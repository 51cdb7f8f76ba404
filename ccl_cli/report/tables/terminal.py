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
    width = width or _terminal_width()
    parts = []
    for table in tables:
        parts += [_terminal_block(each, plain) for each in blocks(table, lambda b: _block_width(b) <= width)]
        best = ("*" if plain else "Bold") + ": best of its column. " if table.best else ""
        parts.append(wrapped(f"{best}{footer(table, results)}", width))
    parts += _terminal_notes(results, width)
    if runs:
        parts.append("\n".join(["Runs:", *run_lines(tables)]))
    return "\n\n".join(parts) + "\n"


def terminal_comparison(
    comparisons: Sequence[Comparison], results: Results, *, plain: bool, width: int | None = None
) -> str:
    """Format comparisons, one row each, and their conclusions; ``width`` as in :func:`terminal_tables`."""
    width = width or _terminal_width()
    parts = []
    for title, same in by_title(comparisons):
        parts.append(_terminal_grid(title, [HEADER], [each.row for each in same], plain=plain))
        parts.append("\n".join(wrapped(each.sentence, width) for each in same))
    return "\n\n".join([*parts, wrapped(CAUTION, width), *_terminal_notes(results, width)]) + "\n"


def wrapped(text: str, width: int | None = None) -> str:
    """Wrap text; ``width`` as in :func:`terminal_tables`."""
    return textwrap.fill(text, width or _terminal_width(), break_long_words=False, break_on_hyphens=False)


def _terminal_width() -> int:
    """Width of the terminal, or ``COLUMNS``; without a terminal, the width of files."""
    return shutil.get_terminal_size((FILE_WIDTH, 24)).columns


def _terminal_header(block: Block) -> list[list[str]]:
    """Header lines; a text that spans several columns is put over the first."""
    lines = [[t for text, n in spans for t in [text, *[""] * (n - 1)]] for spans in block.header_spans()]
    return [["method" if line is lines[-1] else "", *line] for line in lines]


def _terminal_rows(block: Block, mark: str = "") -> list[list[str]]:
    """Rows of label and entries, with aligned decimal points; ``mark`` follows the best values."""
    columns = []
    for column in zip(*(entries for _, entries in block.rows), strict=True):
        width = max(len(each.mean) for each in column)
        columns.append([f"{e.mean:>{width}} {e.spread}".rstrip() + mark * e.best for e in column])
    labels = [label for label, _ in block.rows]
    return [list(row) for row in zip(labels, *columns, strict=True)]


def _block_width(block: Block) -> int:
    lines = [*_terminal_header(block), *_terminal_rows(block, "*")]
    return sum(width + 2 for width in _widths(lines)) - 2


def _terminal_block(block: Block, plain: bool) -> str:
    best = {
        (row, column)
        for row, (_, entries) in enumerate(block.rows)
        for column, each in enumerate(entries, 1)
        if each.best
    }
    rows = _terminal_rows(block, "*" if plain else "")
    return _terminal_grid(block.title, _terminal_header(block), rows, best, plain=plain)


def _terminal_grid(
    title: str,
    header: Sequence[Sequence[str]],
    rows: Sequence[Sequence[str]],
    bold: Collection[tuple[int, int]] = (),
    *,
    plain: bool,
) -> str:
    if plain:
        widths = _widths([*header, *rows])
        lines = (
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in [*header, *rows]
        )
        return "\n".join([title, *lines])
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, 2, 0, 0))
    for place, texts in enumerate(zip(*header, strict=True)):
        grid.add_column(Text("\n".join(texts)), style="cyan" if place == 0 else None, no_wrap=place > 0)
    for number, line in enumerate(rows):
        grid.add_row(*(Text(t, "bold" if (number, i) in bold else "") for i, t in enumerate(line)))
    console = Console()
    with console.capture() as captured:
        console.print(Text(title, "bold"), grid)
    return captured.get().rstrip()


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _terminal_notes(results: Results, width: int) -> list[str]:
    notes = [wrapped(f"Note: {note}", width) for note in results.notes]
    return ["\n".join(notes)] if notes else []
