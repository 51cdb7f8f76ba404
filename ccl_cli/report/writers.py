"""Tables and comparisons as text: for the terminal, as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate, groupby
from typing import Any

from ccl_cli.report import paper
from ccl_cli.report.comparison import CAUTION, HEADER, Comparison
from ccl_cli.report.results import Cell, Results
from ccl_cli.report.tables import Block, Entry, Table, block, blocks, footer, run_lines
from ccl_cli.utils.rows import csv_text

FILE_WIDTH = 100
MAX_COLUMNS = 9  # columns of figures in one table of a page
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|])")
_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
}
_LABELS = {1: "recognition", 2: "retrieval", 3: "ablation"}
_RECORD = ("data", "method", "setup", "metric", "mean", "sd", "n", "failed", "paper")


# ---- terminal


def terminal_tables(
    tables: Sequence[Table], results: Results, *, plain: bool, runs: bool = False, width: int | None = None
) -> str:
    """Tables, how to read them, and what a reader has to know.

    Args:
        tables: What to write.
        results: What they were made of.
        plain: Neither rules nor colours.
        runs: Whether to list the runs of each figure.
        width: Letters in a line; default the terminal's.
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
    """Comparisons, one row each, and what may be said; ``width`` as of :func:`terminal_tables`."""
    width = width or _terminal_width()
    parts = []
    for title, same in _by_title(comparisons):
        parts.append(_terminal_grid(title, [HEADER], [each.row for each in same], plain=plain))
        parts.append("\n".join(wrapped(each.sentence, width) for each in same))
    return "\n\n".join([*parts, wrapped(CAUTION, width), *_terminal_notes(results, width)]) + "\n"


def wrapped(text: str, width: int | None = None) -> str:
    """The text in lines; ``width`` as of :func:`terminal_tables`."""
    return textwrap.fill(text, width or _terminal_width(), break_long_words=False, break_on_hyphens=False)


def _terminal_width() -> int:
    """Width of the terminal; of a pipe, unless ``COLUMNS`` says otherwise, that of a file."""
    return shutil.get_terminal_size((FILE_WIDTH, 24)).columns


def _terminal_header(block: Block) -> list[list[str]]:
    """Lines of the header; a text that holds for several columns stands over the first."""
    lines = [[t for text, n in spans for t in [text, *[""] * (n - 1)]] for spans in block.header_spans()]
    return [["method" if line is lines[-1] else "", *line] for line in lines]


def _terminal_rows(block: Block, mark: str = "") -> list[list[str]]:
    """Label and entries, points below points; ``mark`` after the best."""
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


def _by_title(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    for title, same in groupby(comparisons, key=lambda each: each.title):
        yield title, list(same)


# ---- Markdown


def markdown_tables(tables: Sequence[Table], results: Results) -> str:
    """Tables, what a reader has to know, and, folded, the runs of every figure."""
    parts = []
    for table in tables:
        for each in blocks(table, lambda block: len(block.header) <= MAX_COLUMNS):
            header = ["method", *(escape_markdown(" ".join(filter(None, texts))) for texts in each.header)]
            rows = [[escape_markdown(label), *map(_markdown_entry, entries)] for label, entries in each.rows]
            parts += [f"**{escape_markdown(each.title)}**", markdown_table([header, *rows])]
        parts.append(escape_markdown(footer(table, results)))
    runs = _markdown_list(run_lines(tables))
    folded = f"<details>\n<summary>Runs</summary>\n\n{runs}\n\n</details>\n"
    return "\n\n".join([*parts, *_markdown_notes(results), folded])


def markdown_comparison(comparisons: Sequence[Comparison], results: Results) -> str:
    """Comparisons, one row each, and what may be said."""
    parts = []
    for title, same in _by_title(comparisons):
        rows = [[escape_markdown(text) for text in row] for row in (HEADER, *(each.row for each in same))]
        parts += [f"**{escape_markdown(title)}**", markdown_table(rows)]
        parts.append(_markdown_list([each.sentence for each in same]))
    return "\n\n".join([*parts, CAUTION, *_markdown_notes(results)]) + "\n"


def escape_markdown(text: str) -> str:
    """Text in which no sign means anything to Markdown."""
    return _MARKDOWN.sub(r"\\\1", text)


def markdown_table(lines: Sequence[Sequence[str]], align: str = "---:") -> str:
    """A header and rows of escaped texts; ``align`` of all columns but the first."""
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


# ---- LaTeX


def latex_tables(tables: Sequence[Table], results: Results) -> str:
    r"""Tables in the paper's layout, for ``\input``; needs booktabs and, for wide ones, graphicx."""
    notes = [f"% {note}" for note in results.notes]
    parts = ["% \\usepackage{booktabs,graphicx}", *notes, *(_latex_table(each, results) for each in tables)]
    return "\n".join(parts) + "\n"


def _latex_table(table: Table, results: Results) -> str:
    whole = block(table, table.columns)
    labels = 2 if table.number == 3 else 1  # columns before the figures: the ablation's part, and the method
    groups = " ".join("c" * len(list(same)) for _, same in groupby(header[0] for header in whole.header))
    body = [
        rf"\begin{{tabular}}{{{'l' * labels}{groups}}}",
        r"\toprule",
        *_latex_header(whole, labels),
        r"\midrule",
        *_latex_rows(table, whole),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    wide = len(whole.header) > 6
    if wide:
        body = [r"\resizebox{\textwidth}{!}{%", *body, "}"]
    title = whole.title.partition(". ")[2]
    return "\n".join(
        [
            rf"\begin{{table{'*' * wide}}}[t]",
            r"\centering",
            *body,
            rf"\caption{{{_escape_latex(f'{title}. {footer(table, results)}')}}}",
            rf"\label{{tab:{_LABELS[table.number]}}}",
            rf"\end{{table{'*' * wide}}}",
        ]
    )


def _latex_header(block: Block, labels: int) -> list[str]:
    """Lines with texts over the columns that they hold for, and rules beneath all but the last."""
    lines, depths = [], len(block.header[0])
    for depth, spans in enumerate(block.header_spans(), 1):
        ends = list(accumulate((span for _, span in spans), initial=labels))[1:]
        texts = [
            rf"\multicolumn{{{span}}}{{c}}{{{_escape_latex(text)}}}" if span > 1 else _escape_latex(text)
            for text, span in spans
        ]
        rules = [
            rf"\cmidrule(lr){{{end - span + 1}-{end}}}"
            for end, (_, span) in zip(ends, spans, strict=True)
            if span > 1
        ]
        first = "Method" if depth == depths else ""
        lines.append(" & ".join([*[""] * (labels - 1), first, *texts]) + r" \\")
        lines += [" ".join(rules)] if rules else []
    return lines


def _latex_rows(table: Table, block: Block) -> Iterator[str]:
    previous = ""
    for row, (_, entries) in zip(table.rows, block.rows, strict=True):
        cells = [_escape_latex(paper.printed(row)), *map(_latex_entry, entries)]
        if table.number == 3:
            part = paper.PARTS.get(row, "")
            if part != previous:
                yield r"\midrule"
            cells = [part if part != previous else "", *cells]
            previous = part
        yield " & ".join(cells) + r" \\"


def _latex_entry(entry: Entry) -> str:
    mean = rf"\textbf{{{entry.mean}}}" if entry.best else entry.mean
    return f"{mean} {_escape_latex(entry.spread)}".strip()


def _escape_latex(text: str) -> str:
    """Text in which no sign means anything to LaTeX; losses as the paper writes them."""
    safe = "".join(_LATEX.get(sign, sign) for sign in text)
    return re.sub(r"\bL\\_(\w+)", r"$\\mathcal{L}_{\1}$", safe)


# ---- records


def csv_tables(tables: Sequence[Table], results: Results) -> str:
    """One row for each data set, method, setup and metric; figures unrounded."""
    rows: list[Sequence[object]] = [[*_RECORD, "seeds", "recipes", "folders"]]
    for record in _records(tables):
        runs = [";".join(str(run[key]) for run in record["runs"]) for key in ("seed", "recipe", "folder")]
        rows.append([*(record[name] for name in _RECORD), *runs])
    return csv_text(rows)


def json_tables(tables: Sequence[Table], results: Results) -> str:
    """One object: figures, unrounded, and notes."""
    return json.dumps({"figures": list(_records(tables)), "notes": results.notes}, indent=2) + "\n"


def json_comparison(comparisons: Sequence[Comparison], results: Results) -> str:
    """One object: comparisons and notes."""
    records = [_comparison_record(each) for each in comparisons]
    return json.dumps({"comparisons": records, "notes": results.notes}, indent=2) + "\n"


def _records(tables: Sequence[Table]) -> Iterator[dict[str, Any]]:
    """Every figure once, with its runs."""
    for cell in dict.fromkeys(cell for table in tables for cell in table.distinct_cells):
        yield _cell_record(cell)


def _cell_record(cell: Cell) -> dict[str, Any]:
    printed = paper.figure(cell.data, cell.method, cell.setup, cell.metric)
    runs = [
        {
            "seed": run.seed,
            "recipe": run.hash,
            "folder": str(run.folder),
            "value": cell.values[run.seed],
            "manifest": run.manifests[cell.data],
        }
        for run in cell.runs
    ]
    record = {name: getattr(cell, name) for name in ("data", "method", "setup", "metric", "mean", "sd", "n")}
    paper_value = float(printed) if printed not in ("", "-") else None
    return record | {"failed": len(cell.failed), "paper": paper_value, "runs": runs}


def _comparison_record(comparison: Comparison) -> dict[str, Any]:
    wins, ties, losses = comparison.wins_ties_losses
    return {
        **asdict(comparison),
        "mean": comparison.mean,
        "interval": comparison.interval,
        "p": comparison.p,
        "n": comparison.n,
        "wins": wins,
        "ties": ties,
        "losses": losses,
        "sentence": comparison.sentence,
    }
