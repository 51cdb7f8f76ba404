"""Tables as LaTeX, in the layout of the paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

from ccl_cli.report.records import paper
from ccl_cli.report.records.results import Results
from ccl_cli.report.tables.build import Block, Entry, Table, block, footer

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


def latex_tables(tables: Sequence[Table], results: Results) -> str:
    r"""Format tables for ``\input``; requires the packages booktabs and, for wide tables, graphicx."""
    notes = [f"% {note}" for note in results.notes]
    parts = ["% \\usepackage{booktabs,graphicx}", *notes, *(_latex_table(each, results) for each in tables)]
    return "\n".join(parts) + "\n"


def _latex_table(table: Table, results: Results) -> str:
    whole = block(table, table.columns)
    labels = 2 if table.number == 3 else 1  # the ablation table has a column for its parts
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
    """Header lines, with rules under texts that span several columns."""
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
        cells = [_escape_latex(paper.printed_name(row)), *map(_latex_entry, entries)]
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
    """Escape the special characters of LaTeX; typeset losses as in the paper."""
    safe = "".join(_LATEX.get(sign, sign) for sign in text)
    return re.sub(r"\bL\\_(\w+)", r"$\\mathcal{L}_{\1}$", safe)
