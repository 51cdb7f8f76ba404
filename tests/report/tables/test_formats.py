"""The same tables in every format."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest

from ccl_cli.report.records.results import load_results
from ccl_cli.report.tables.build import blocks, tables
from ccl_cli.report.tables.csv_json import csv_tables, json_tables
from ccl_cli.report.tables.latex import latex_tables
from ccl_cli.report.tables.markdown import markdown_tables
from ccl_cli.report.tables.terminal import terminal_tables
from tests.report.folders import write_cell

HOSTILE = r"50%_a&b#$^~\{x}|<i>[red]*y*`z`"


def test_csv_and_json_hold_the_figures_unrounded(bench):
    rows = list(csv.DictReader(io.StringIO(csv_tables(*bench))))
    (row,) = [r for r in rows if (r["method"], r["setup"], r["metric"]) == ("cckd", "A", "top1")]
    assert (float(row["mean"]), float(row["sd"])) == (61.25, pytest.approx(math.sqrt(0.125)))
    assert (row["n"], row["failed"], row["paper"], row["seeds"]) == ("2", "1", "57.7", "0;1")
    assert row["folders"] == "runs/b/final-cckd-A-s0;runs/b/final-cckd-A-s1"
    assert re.fullmatch(r"[0-9a-f]{8};[0-9a-f]{8}", row["recipes"])
    keys = [(r["data"], r["method"], r["setup"], r["metric"]) for r in rows]
    assert len(keys) == len(set(keys)) == (1 + 4 * 3) * 4 + 2 * 3
    record = json.loads(json_tables(*bench))
    assert [each["mean"] for each in record["results"]] == [
        float(r["mean"]) if r["mean"] else None for r in rows
    ]
    assert record["results"][1]["runs"][0]["value"] == 58.0
    assert record["notes"] == list(bench[1].notes)


def well_formed(text: str) -> None:
    """Braces and environments are closed, and every line of a tabular fills its columns."""
    bare = re.sub(r"(?<!\\)%.*|\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for spec, body in re.findall(r"\\begin{tabular}{(.*?)}\n(.*?)\\end{tabular}", text, re.S):
        for line in (line for line in body.splitlines() if line.endswith(r"\\")):
            spans = [int(n) - 1 for n in re.findall(r"\\multicolumn{(\d+)}", line)]
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) == len(spec.replace(" ", "")), line


@pytest.mark.parametrize("printed", [False, True])
def test_latex(bench, printed):
    text = latex_tables(tables(bench[1], printed=printed), bench[1])
    well_formed(text)
    theirs = " & 64.9" if printed else ""
    assert rf"CCL & \textbf{{64.5}} $\pm$ 0.5{theirs} & \textbf{{66.0}}" in text
    assert r"COR & 61.2 $\pm$ 0.4 (n=2)" in text
    assert r"(b) & CCL w $\mathcal{L}_{ct}$ & 61.2" in text
    assert rf"\multicolumn{{{6 if printed else 3}}}{{c}}{{AI}}" in text
    assert text.count(r"\begin{table*}") == text.count(r"\resizebox{\textwidth}") == 1  # table 2
    assert "% Failed (The loss is not finite): cckd A seed 2" in text


def test_markdown(bench):
    text = markdown_tables(*bench)
    assert "| method | A | I | AI |\n| --- | ---: | ---: | ---: |\n| baseline | 58.0 ± 1.0 |" in text
    assert "| method | A R@1 | A R@5 |" in text
    assert "| ccl | **64.5** ± 0.5 | **66.0** ± 0.5 | **67.5** ± 0.5 |" in text
    assert "| (b) ccl w L\\_ct | 61.2" in text
    assert "- Failed (The loss is not finite): cckd A seed 2" in text


def test_hostile_labels_stay_text():
    for label in (HOSTILE, "=HYPERLINK(1)", "+1", "-1", "@1"):
        write_cell(Path("runs/x"), label, "A", method="ccl", top1=50.0)
    results = load_results()
    built = tables(results)
    tex = latex_tables(built, results)
    well_formed(tex)
    assert (
        r"50\%\_a\&b\#\$\textasciicircum{}\textasciitilde{}\textbackslash{}\{x\}$|$$<$i$>$[red]*y*`z`" in tex
    )
    assert r"| 50%\_a&b#$^~\\{x}\|\<i\>\[red\]\*y\*\`z\` | **50.0** |" in markdown_tables(built, results)
    assert HOSTILE in terminal_tables(built, results, plain=False)
    rows = csv.DictReader(io.StringIO(csv_tables(built, results)))
    assert {row["method"] for row in rows} == {HOSTILE, "'=HYPERLINK(1)", "'+1", "'-1", "'@1"}  # no formulas


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_wider_than_the_terminal(bench, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for plain in (True, False):
        assert max(map(len, terminal_tables(*bench, plain=plain).splitlines())) <= columns
    widest = [len(blocks(bench[0][1], lambda each: len(each.levels) <= count)) for count in (9, 8, 1)]  # noqa: B023
    assert widest == [1, 3, 3]


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
    folded = markdown_tables(*bench).partition("<details>")[2].replace("\\", "")
    for text in (terminal_tables(*bench, plain=True, runs=True), folded):
        ours = [run for cell in bench[1].cells.values() for run in cell.runs]
        assert all(f"seed {run.seed} {run.hash} {run.folder}" in text for run in ours)
        assert "rkd A: seed 0 failed runs/b/failed-rkd-A-s0" in text
