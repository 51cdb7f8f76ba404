from __future__ import annotations

import re

import pytest

from ccl_cli.report.records import paper

_NAMES = {theirs.lower(): label for label, theirs in (paper.METHODS | paper.ABLATIONS).items()}


@pytest.mark.parametrize(
    ("key", "printed"),
    [
        (("ucf51-split1", "ccl", "AI", "top1"), "70.0"),
        (("activitynet", "rkd", "A", "top1"), "-"),
        (("activitynet", "crd", "A", "r10"), "58.9"),
        (("ucf51", "ccl w L_ct", "I", "top1"), "68.4"),
        (("ucf51-split2", "ccl", "AI", "top1"), ""),
        (("ucf51", "kd", "AI", "top1"), ""),
        (("activitynet", "ccl w L_ct", "I", "top1"), ""),
    ],
)
def test_figures(key, printed):
    assert paper.printed_value(*key) == printed


def _label(cell: str) -> str:
    name = re.sub(r"\$\\mathcal\{L\}_\{(\w+)\}\$", r"L_\1", cell).strip().lower()
    return _NAMES[name]


def test_every_figure_is_the_one_printed(shared):
    """The tables as they stand in the paper's text, row by row."""
    text = (shared / "paper.md").read_text().replace("<b>", "").replace("</b>", "")
    rows = [[cell.strip() for cell in line.split("\t")] for line in text.splitlines() if "\t" in line]
    figures = [row for row in rows if re.fullmatch(r"[\d.]+", row[-1]) or row[-1] == "-"]
    setups, count = paper.SETUPS, 0
    for row in figures:
        *names, values = [*row[: -len(_values(row))], _values(row)]
        label = _label(names[-1])
        metrics = {3: ["top1"], 6: ["top1"], 18: ["r1", "r5", "r10"]}[len(values)]
        keys = [(d, label, s, m) for d in ("ucf51", "activitynet") for s in setups for m in metrics]
        for key, value in zip(keys, values, strict=False):
            assert paper.printed_value(*key) == value, key
            count += 1
    assert count == 9 * 6 + 9 * 18 + 6 * 3


def _values(row: list[str]) -> list[str]:
    return [cell for cell in row if re.fullmatch(r"[\d.]+|-", cell)]
