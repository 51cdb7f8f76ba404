"""Tables and comparisons for the terminal: ruled and coloured there, aligned and plain elsewhere."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Sequence

from ccl_cli.report import paired
from ccl_cli.report.layout import Block, blocks, footer, run_lines
from ccl_cli.report.table import Summary, Table

FILE_WIDTH = 100
_Lines = Sequence[Sequence[str]]


def columns() -> int:
    """Width of the terminal; of a pipe, unless ``COLUMNS`` says otherwise, that of a file."""
    return shutil.get_terminal_size((FILE_WIDTH, 24)).columns


def table(
    found: Sequence[Table],
    summary: Summary,
    *,
    plain: bool,
    runs: bool = False,
    width: int | None = None,
) -> str:
    """Tables, how to read them, and what a reader has to know.

    Args:
        found: The tables.
        summary: What they were made of.
        plain: Neither rules nor colours.
        runs: Whether to list what is behind each figure.
        width: Letters in a line; default the terminal's.
    """
    width = width or columns()
    parts = []
    for each in found:
        for block in blocks(each, lambda block: _width(block) <= width, named=True):
            parts.append(_block(block, plain))
        best = ("*" if plain else "Bold") + ": best of its column. " if each.best else ""
        parts.append(wrapped(f"{best}{footer(each, summary)}", width))
    parts += _notes(summary, width)
    if runs:
        parts.append("\n".join(["Runs:", *run_lines(found)]))
    return "\n\n".join(parts) + "\n"


def comparison(
    pairs: Sequence[paired.Paired], summary: Summary, *, plain: bool, width: int | None = None
) -> str:
    """Comparisons, one row each, and what may be said; ``width`` as of :func:`table`."""
    width = width or columns()
    parts = []
    for same in paired.by_data(pairs):
        header, *rows = paired.rows(same)
        parts.append(_sheet(paired.title(same), [header], rows, plain=plain))
        parts.append("\n".join(wrapped(pair.sentence, width) for pair in same))
    return "\n\n".join([*parts, wrapped(paired.CAUTION, width), *_notes(summary, width)]) + "\n"


def _block(block: Block, plain: bool) -> str:
    *upper, lowest = _header_lines(block)
    header = [*(["", *line] for line in upper), ["method", *lowest]]
    texts = _aligned(block, "*" if plain else "")
    rows = [[label, *line] for label, line in zip(block.labels, texts, strict=True)]
    best = {
        (row, place)
        for row, entries in enumerate(block.entries)
        for place, each in enumerate(entries, 1)
        if each.best
    }
    return _sheet(block.title, header, rows, best, plain=plain)


def _aligned(block: Block, mark: str) -> list[list[str]]:
    """The entries' texts, points under points; ``mark`` after the best."""
    texts = []
    for column in zip(*block.entries, strict=True):
        width = max(len(each.mean) for each in column)
        texts.append([f"{e.mean:>{width}} {e.spread}".rstrip() + mark * e.best for e in column])
    return [list(row) for row in zip(*texts, strict=True)]


def _header_lines(block: Block) -> list[list[str]]:
    """Lines of the header; a text that holds for several columns stands over the first."""
    depths = len(block.header[0])
    lines = []
    for depth in range(1, depths + 1):
        paths = [header[:depth] for header in block.header]
        goes_on = [
            depth < depths and path == before for path, before in zip(paths, [None, *paths], strict=False)
        ]
        lines.append(["" if same else path[-1] for path, same in zip(paths, goes_on, strict=True)])
    return lines


def _width(block: Block) -> int:
    rows = [*_header_lines(block), *_aligned(block, "*")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return max(map(len, ["method", *block.labels])) + sum(width + 2 for width in widths)


def _sheet(
    title: str, header: _Lines, rows: _Lines, bold: Collection[tuple[int, int]] = (), *, plain: bool
) -> str:
    if plain:
        widths = [max(map(len, column)) for column in zip(*header, *rows, strict=True)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in [*header, *rows]
        ]
        return "\n".join([title, *lines])
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Ruled
    from rich.text import Text

    ruled = Ruled(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, 2, 0, 0))
    for place, texts in enumerate(zip(*header, strict=True)):
        ruled.add_column(Text("\n".join(texts)), style="cyan" if place == 0 else None, no_wrap=place > 0)
    for number, line in enumerate(rows):
        ruled.add_row(*(Text(t, "bold" if (number, i) in bold else "") for i, t in enumerate(line)))
    console = Console()
    with console.capture() as captured:
        console.print(Text(title, "bold"), ruled)
    return captured.get().rstrip()


def _notes(summary: Summary, width: int) -> list[str]:
    notes = [wrapped(f"Note: {note}", width) for note in summary.notes]
    return ["\n".join(notes)] if notes else []


def wrapped(text: str, width: int | None = None) -> str:
    """The text in lines; ``width`` as of :func:`table`."""
    return textwrap.fill(text, width or columns(), break_long_words=False, break_on_hyphens=False)
