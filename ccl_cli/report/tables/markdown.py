"""Tables and comparisons as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ccl_cli.report.records.comparison import CAUTION, HEADER, Comparison, by_title
from ccl_cli.report.records.results import Results
from ccl_cli.report.tables.build import MAX_COLUMNS, Entry, Table, blocks, footer, run_lines

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|])")


def markdown_tables(tables: Sequence[Table], results: Results) -> str:
    """Format tables, notes and, in a folded section, the runs behind every value."""
    parts = []
    for table in tables:
        for each in blocks(table, lambda block: len(block.levels) <= MAX_COLUMNS):
            rows = [[escape_markdown(label), *map(_markdown_entry, entries)] for label, entries in each.rows]
            header = [*map(escape_markdown, each.header)]
            parts += [f"**{escape_markdown(each.title)}**", markdown_table([header, *rows])]
        parts.append(escape_markdown(footer(table, results)))
    runs = _markdown_list(run_lines(tables))
    folded = f"<details>\n<summary>Runs</summary>\n\n{runs}\n\n</details>\n"
    return "\n\n".join([*parts, *_markdown_notes(results), folded])


def markdown_comparison(comparisons: Sequence[Comparison], results: Results) -> str:
    """Format comparisons, one row each, and their conclusions."""
    parts = []
    for title, same in by_title(comparisons):
        rows = [[*map(escape_markdown, row)] for row in (HEADER, *(each.row for each in same))]
        parts += [f"**{escape_markdown(title)}**", markdown_table(rows)]
        parts.append(_markdown_list([each.sentence for each in same]))
    return "\n\n".join([*parts, CAUTION, *_markdown_notes(results)]) + "\n"


def escape_markdown(text: str) -> str:
    """Escape the special characters of Markdown."""
    return _MARKDOWN.sub(r"\\\1", text)


def markdown_table(lines: Sequence[Sequence[str]], align: str = "---:") -> str:
    """Format a header and rows of escaped texts; ``align`` applies to all columns but the first."""
    header, *rows = lines
    rule = ["---", *[align] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *rows])


def _markdown_entry(entry: Entry) -> str:
    mean = f"**{entry.mean}**" if entry.best else entry.mean
    return f"{mean} {entry.spread}".strip()


def _markdown_list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)


def _markdown_notes(results: Results) -> list[str]:
    return [_markdown_list(results.notes)] if results.notes else []
