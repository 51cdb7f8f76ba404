"""Tables and comparisons as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ccl_cli.report import paired
from ccl_cli.report.layout import Block, Entry, blocks, footer, run_lines
from ccl_cli.report.table import Summary, Table

_SIGNS = re.compile(r"([\\`*_\[\]<>|])")
_WIDEST = 9  # columns of figures


def table(found: Sequence[Table], summary: Summary) -> str:
    """Tables, what a reader has to know, and, folded, the runs of every figure."""
    parts = []
    for each in found:
        for block in blocks(each, lambda block: len(block.header) <= _WIDEST, named=True):
            parts += [f"**{escaped(block.title)}**", _block(block)]
        parts.append(escaped(footer(each, summary)))
    runs = _list(run_lines(found))
    return "\n\n".join(
        [*parts, *_notes(summary), f"<details>\n<summary>Runs</summary>\n\n{runs}\n\n</details>\n"]
    )


def comparison(pairs: Sequence[paired.Paired], summary: Summary) -> str:
    """Comparisons, one row each, and what may be said."""
    parts = []
    for same in paired.by_data(pairs):
        header, *rows = [[escaped(text) for text in row] for row in paired.rows(same)]
        parts += [f"**{escaped(paired.title(same))}**", _rows(header, rows)]
        parts.append(_list([pair.sentence for pair in same]))
    return "\n\n".join([*parts, paired.CAUTION, *_notes(summary)]) + "\n"


def escaped(text: str) -> str:
    """Text in which no sign means anything to Markdown."""
    return _SIGNS.sub(r"\\\1", text)


def _block(block: Block) -> str:
    header = ["method", *(escaped(" ".join(filter(None, texts))) for texts in block.header)]
    rows = [
        [escaped(label), *map(_entry, entries)]
        for label, entries in zip(block.labels, block.entries, strict=True)
    ]
    return _rows(header, rows)


def _entry(each: Entry) -> str:
    mean = f"**{each.mean}**" if each.best else each.mean
    return f"{mean} {each.spread}".strip()


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)


def _notes(summary: Summary) -> list[str]:
    return [_list(summary.notes)] if summary.notes else []
