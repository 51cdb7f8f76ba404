from __future__ import annotations

import re

from ccl_cli.report.records import paper

_NAMES = {theirs.lower(): label for label, theirs in (paper.METHODS | paper.ABLATIONS).items()}


def test_what_the_paper_does_not_have():
    for key in (("ucf51-split2", "ccl", "AI"), ("ucf51", "kd", "AI"), ("activitynet", "ccl w L_ct", "I")):
        assert paper.printed_value(*key, "top1") == ""
    assert paper.printed_value("ucf51-split1", "ccl", "AI", "top1") == "70.0"


def test_every_figure_is_the_one_printed(shared):
    """The tables as they stand in the paper's text, row by row."""
    text = (shared / "paper.md").read_text().replace("<b>", "").replace("</b>", "")
    count = 0
    for row in ([cell.strip() for cell in line.split("\t")] for line in text.splitlines() if "\t" in line):
        values = [cell for cell in row if re.fullmatch(r"[\d.]+|-", cell)]
        if not values or values[-1] != row[-1]:
            continue  # a header
        name = re.sub(r"\$\\mathcal\{L\}_\{(\w+)\}\$", r"L_\1", row[-len(values) - 1]).strip().lower()
        metrics = {3: ["top1"], 6: ["top1"], 18: ["r1", "r5", "r10"]}[len(values)]
        keys = [
            (d, _NAMES[name], s, m) for d in ("ucf51", "activitynet") for s in paper.SETUPS for m in metrics
        ]
        assert [paper.printed_value(*key) for key in keys[: len(values)]] == values
        count += len(values)
    assert count == 9 * 6 + 9 * 18 + 6 * 3
