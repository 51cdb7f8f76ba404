from __future__ import annotations

import pytest

from ccl_cli.report.tables.build import blocks
from ccl_cli.report.tables.markdown import markdown_tables
from ccl_cli.report.tables.terminal import terminal_tables


def test_narrow_terminals_get_more_tables(bench):
    table = bench[0][1]
    widest = lambda count: len(blocks(table, lambda each: len(each.levels) <= count))  # noqa: E731
    assert (widest(9), widest(8), widest(3), widest(1)) == (1, 3, 3, 3)


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_wider_than_the_terminal(bench, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for plain in (True, False):
        assert max(map(len, terminal_tables(*bench, plain=plain).splitlines())) <= columns


def test_plain_text(bench, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    built, results = bench
    assert terminal_tables(built[:1], results, plain=True).split("\n\n")[:2] == [
        "Table 1. Video recognition: ucf51-split1, top-1 (%)\n"
        "method    A                 I            AI\n"
        "baseline  58.0 ± 1.0        58.0 ± 1.0   58.0 ± 1.0\n"
        "fitnet    58.5 ± 0.5        60.0 ± 0.5   61.5 ± 0.5\n"
        "cckd      61.2 ± 0.4 (n=2)  63.0 ± 0.5   64.5 ± 0.5\n"
        "rkd          -                 -            -\n"
        "ccl       64.5 ± 0.5*       66.0 ± 0.5*  67.5 ± 0.5*",
        "*: best of its column. Mean ± standard deviation over 3 seeds where no other n\n"
        "is given, in percent; A: audio; I: image; -: no run of it succeeded.",
    ]


def test_a_terminal_gets_bold_and_no_stars(bench, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = terminal_tables(*bench, plain=False)
    assert "\x1b[1m64.5 ± 0.5" in text
    assert "*" not in text


def test_every_figure_can_be_traced(bench):
    text = terminal_tables(*bench, plain=True, runs=True)
    ours = [run for cell in bench[1].cells.values() for run in cell.runs]
    assert all(f"seed {run.seed} {run.hash} {run.folder}" in text for run in ours)
    assert "rkd A: seed 0 failed runs/b/failed-rkd-A-s0" in text
    folded = markdown_tables(*bench).partition("<details>")[2].replace("\\", "")
    assert all(f"seed {run.seed} {run.hash} {run.folder}" in folded for run in ours)
    assert folded.rstrip().endswith("</details>")
