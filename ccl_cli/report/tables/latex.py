"""Tables as LaTeX, in the layout of the paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

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
    groups = " ".join("c" * len(list(same)) for _, same in groupby(texts[0] for texts in whole.levels))
    wide = len(whole.levels) > 6
    star, title = "*" * wide, whole.title.partition(". ")[2]
    lines = [
        rf"\begin{{table{star}}}[t]",
        r"\centering",
        *[r"\resizebox{\textwidth}{!}{%"] * wide,
        rf"\begin{{tabular}}{{{'l' * labels}{groups}}}",
        r"\toprule",
        *_latex_header(whole, labels),
        r"\midrule",
        *_latex_rows(table, whole),
        r"\bottomrule",
        r"\end{tabular}",
        *["}"] * wide,
        rf"\caption{{{_escape_latex(f'{title}. {footer(table, results)}')}}}",
        rf"\label{{tab:{_LABELS[table.number]}}}",
        rf"\end{{table{star}}}",
    ]
    return "\n".join(lines)


def _latex_header(block: Block, labels: int) -> Iterator[str]:
    """Header lines; texts over several columns have a rule under them."""
    depths = len(block.levels[0])
    for depth in range(1, depths):
        cells, rules, end = [""] * labels, [], labels
        for path, same in groupby(texts[:depth] for texts in block.levels):
            span = len(list(same))
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{_escape_latex(path[-1])}}}")
            rules.append(rf"\cmidrule(lr){{{end + 1}-{end + span}}}")
            end += span
        yield " & ".join(cells) + r" \\"
        yield " ".join(rules)
    last = [_escape_latex(texts[-1]) for texts in block.levels]
    yield " & ".join([*[""] * (labels - 1), "Method", *last]) + r" \\"


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
