"""Tables as LaTeX, in the paper's layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from ccl_cli.report import paper
from ccl_cli.report.layout import Block, Entry, footer, lay_out
from ccl_cli.report.table import Summary, Table

_SIGNS = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
}
_NAMES = ("recognition", "retrieval", "ablation")


def table(found: Sequence[Table], summary: Summary) -> str:
    r"""Tables in the paper's layout, for ``\input``; needs booktabs and, for wide ones, graphicx."""
    notes = [f"% {note}" for note in summary.notes]
    return (
        "\n".join(["% \\usepackage{booktabs,graphicx}", *notes, *(_table(t, summary) for t in found)]) + "\n"
    )


def escaped(text: str) -> str:
    """Text in which no sign means anything to LaTeX; losses as the paper writes them."""
    safe = "".join(_SIGNS.get(sign, sign) for sign in text)
    return re.sub(r"\bL\\_(\w+)", r"$\\mathcal{L}_{\1}$", safe)


def _table(table: Table, summary: Summary) -> str:
    block = lay_out(table, table.columns)
    wide = len(block.header) > 6
    parts = ["", ""] if table.number == 3 else [""]
    star = "*" * wide
    body = [
        rf"\begin{{tabular}}{{{'l' * len(parts)}{_groups(block)}}}",
        r"\toprule",
        *_header(block, len(parts)),
        r"\midrule",
        *_rows(table, block),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if wide:
        body = [r"\resizebox{\textwidth}{!}{%", *body, "}"]
    title = block.title.partition(". ")[2]
    return "\n".join(
        [
            rf"\begin{{table{star}}}[t]",
            r"\centering",
            *body,
            rf"\caption{{{escaped(f'{title}. {footer(table, summary)}')}}}",
            rf"\label{{tab:{_NAMES[table.number - 1]}}}",
            rf"\end{{table{star}}}",
        ]
    )


def _groups(block: Block) -> str:
    return " ".join("c" * len(list(same)) for _, same in groupby(block.header, key=lambda header: header[0]))


def _header(block: Block, before: int) -> list[str]:
    """Lines with texts over the columns that they hold for, and rules beneath all but the last."""
    lines = []
    depths = len(block.header[0])
    for depth in range(depths):
        texts, rules, place = [], [], before + 1
        for path, same in groupby(block.header, key=lambda header: header[: depth + 1]):
            span = len(list(same))
            text = escaped(path[-1])
            texts.append(rf"\multicolumn{{{span}}}{{c}}{{{text}}}" if span > 1 else text)
            rules.append(rf"\cmidrule(lr){{{place}-{place + span - 1}}}" if span > 1 else "")
            place += span
        first = ["Method" if depth == depths - 1 else ""]
        lines.append(" & ".join([*[""] * (before - 1), *first, *texts]) + r" \\")
        if any(rules) and depth < depths - 1:
            lines.append(" ".join(filter(None, rules)))
    return lines


def _rows(table: Table, block: Block) -> list[str]:
    lines, part_before = [], ""
    for row, entries in zip(table.rows, block.entries, strict=True):
        cells = [escaped(paper.printed(row)), *map(_entry, entries)]
        if table.number == 3:
            part = paper.PARTS.get(row, "")
            lines += [r"\midrule"] if part != part_before else []
            cells = [part if part != part_before else "", *cells]
            part_before = part
        lines.append(" & ".join(cells) + r" \\")
    return lines


def _entry(each: Entry) -> str:
    mean = rf"\textbf{{{each.mean}}}" if each.best else each.mean
    return escaped(f"\0 {each.spread}".strip()).replace("\0", mean).strip()
