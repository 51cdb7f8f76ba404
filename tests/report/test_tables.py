from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from pathlib import Path

import pytest

from ccl_cli.errors import DataError, UsageError
from ccl_cli.report.results import load_results
from ccl_cli.report.tables import Column, block, blocks, entry, tables
from ccl_cli.report.writers import csv_tables, json_tables, latex_tables, markdown_tables, terminal_tables
from tests.report.folders import write_bench, write_cell, write_failed, write_run

RUNS = Path("runs")


def summary(*paths: Path):
    return load_results(paths)


def one(number: int, *paths: Path, **rest):
    (table,) = tables(summary(*paths), [number], **rest)
    return table


def texts(table) -> list[list[str]]:
    """What stands in each row, the best in stars."""
    lines = []
    for row in table.rows:
        entries = [entry(table, row, column) for column in table.columns]
        lines.append([row, *(f"{'*' * e.best}{e.mean} {e.spread}".strip() for e in entries)])
    return lines


# ---- mean and deviation


@pytest.fixture
def a_cell(monkeypatch, tmp_path):
    """A cell of runs with these values."""
    numbers = itertools.count()

    def made(*values):
        root = tmp_path / str(next(numbers))
        for seed, value in enumerate(values):
            write_cell(root, "ccl", "A", seed, top1=value, data="d")
        return load_results([root]).cells["d", "ccl", "A", "top1"]

    return made


def test_mean_and_sample_deviation_over_seeds(a_cell):
    cell = a_cell(61.0, 64.0, 70.0)  # mean 65; squares 16 + 1 + 25 = 42, over 2: 21
    assert (cell.mean, cell.sd, cell.n) == (65.0, pytest.approx(math.sqrt(21)), 3)
    assert (a_cell(3.0).mean, a_cell(3.0).sd) == (3.0, None)
    assert a_cell(57.1, 57.1, 57.1).sd == pytest.approx(0, abs=1e-9)


# ---- layout


@pytest.fixture
def bench():
    results = summary(write_bench(RUNS / "b"))
    return tables(results), results


def test_tables_as_the_paper_lays_them_out(bench):
    recognition, retrieval, ablation = bench[0]
    assert recognition.columns == tuple(Column("ucf51-split1", setup, "top1") for setup in ("A", "I", "AI"))
    assert texts(recognition) == [
        ["baseline", "58.0 ± 1.0", "58.0 ± 1.0", "58.0 ± 1.0"],
        ["fitnet", "58.5 ± 0.5", "60.0 ± 0.5", "61.5 ± 0.5"],
        ["cckd", "61.2 ± 0.4 (n=2)", "63.0 ± 0.5", "64.5 ± 0.5"],
        ["rkd", "-", "-", "-"],
        ["ccl", "*64.5 ± 0.5", "*66.0 ± 0.5", "*67.5 ± 0.5"],
    ]
    assert [(c.setup, c.metric) for c in retrieval.columns] == [
        (setup, metric) for setup in ("A", "I", "AI") for metric in ("r1", "r5", "r10")
    ]
    assert texts(retrieval)[-1][1:4] == ["*63.0 ± 0.0", "*69.0 ± 0.0", "*73.2 ± 0.2"]
    assert ablation.rows == ("baseline", "ccl w/o composition", "ccl w L_ct", "ccl")
    assert texts(ablation)[1] == ["ccl w/o composition", "61.2 ± 0.2", "62.2 ± 0.2", "63.2 ± 0.2"]


def test_rows_the_paper_does_not_have_come_last_and_data_sets_stand_side_by_side():
    for data in ("activitynet", "zoo", "ucf51-split1", "birds"):
        for label in ("zz", "ccl", "kd", "fitnet"):
            write_cell(RUNS / data, label, "A", method="ccl", data=data, top1=50.0)
    table = one(1, RUNS)
    assert table.rows == ("fitnet", "ccl", "kd", "zz")
    assert [column.data for column in table.columns] == ["ucf51-split1", "activitynet", "birds", "zoo"]


def test_ties_that_look_equal_are_all_best_and_a_single_row_is_not():
    write_cell(RUNS / "x", "a", "A", method="ccl", top1=60.01)
    write_cell(RUNS / "x", "b", "A", method="ccl", top1=60.04)
    write_cell(RUNS / "x", "c", "A", method="ccl", top1=59.0)
    assert texts(one(1, RUNS / "x")) == [["a", "*60.0"], ["b", "*60.0"], ["c", "59.0"]]
    write_cell(RUNS / "y", "a", "A", method="ccl", top1=60.0)
    assert texts(one(1, RUNS / "y")) == [["a", "60.0"]]


def test_a_baseline_alone_and_a_method_in_some_setups_only():
    write_cell(RUNS / "x", "baseline", "", top1=40.0)
    assert [column.setup for column in one(1, RUNS / "x").columns] == [""]
    write_cell(RUNS / "x", "ccl", "AI", top1=50.0)
    write_cell(RUNS / "x", "crd", "A", method="ccl", top1=45.0)
    assert texts(one(1, RUNS / "x")) == [
        ["baseline", "40.0", "40.0"],
        ["crd", "*45.0", ""],
        ["ccl", "", "*50.0"],
    ]


def test_a_failed_cell_of_a_bench_is_a_dash_for_the_data_of_that_bench_only():
    write_cell(RUNS / "one", "ccl", "A", data="d1", top1=1.0)
    write_failed(RUNS / "one", "crd", "A", 0)
    write_cell(RUNS / "two", "ccl", "A", data="d2", top1=2.0)
    assert texts(one(1, RUNS)) == [["crd", "-", ""], ["ccl", "1.0", "2.0"]]
    assert summary(RUNS).notes == (
        "Failed (The loss is not finite): crd A seed 0 (runs/one/failed-crd-A-s0).",
    )


@pytest.mark.parametrize(
    ("numbers", "metrics", "expected"),
    [
        ([], [], {1: {"top1"}, 2: {"r1", "r5", "r10"}, 3: {"top1"}}),
        ([], ["map"], {2: {"map"}}),
        ([], ["top5", "r5"], {1: {"top5"}, 2: {"r5"}, 3: {"top5"}}),
        ([1], ["top5", "mean_class"], {1: {"top5", "mean_class"}}),
    ],
)
def test_other_metrics(bench, numbers, metrics, expected):
    built = tables(bench[1], numbers, metrics)
    assert {table.number: {column.metric for column in table.columns} for table in built} == expected


@pytest.mark.parametrize(
    ("numbers", "metrics", "error"),
    [([1], ["map"], UsageError), ([1], ["top2"], UsageError), ([3], [], DataError), ([2], [], DataError)],
)
def test_tables_that_cannot_be(numbers, metrics, error):
    write_run(RUNS / "x" / "a", top1=1.0)
    with pytest.raises(error):
        tables(summary(), numbers, metrics)


def test_the_papers_figures_stand_beside_ours():
    write_cell(RUNS / "x", "cckd", "AI", method="ccl", top1=50.0)
    write_cell(RUNS / "x", "baseline", "", top1=40.0)
    table = one(1, RUNS / "x", printed=True)
    assert texts(table) == [["baseline", "40.0", "57.5"], ["cckd", "*50.0", "66.3"]]
    assert [label for label, _ in block(table, table.columns).rows] == ["baseline", "cckd (COR)"]


# ---- what is not averaged, and what is said


@pytest.mark.parametrize(
    ("second", "differences"),
    [
        ({"optim": {"lr": 0.2}}, ("optim.lr=0.1", "optim.lr=0.2")),
        (
            {"optim": {"lr": 0.1}, "eval": {"batch_size": 8}},  # it hardly matters
            ("eval.batch_size=32", "eval.batch_size=8"),
        ),
    ],
)
def test_different_recipes_are_refused(second, differences):
    write_cell(RUNS / "x", "ccl", "AI", 0, top1=50.0, optim={"lr": 0.1})
    write_cell(RUNS / "x", "ccl", "AI", 1, top1=50.0, **second)
    with pytest.raises(UsageError) as caught:
        summary()
    assert caught.value.message == (
        "'ccl AI' on ucf51-split1 comes from 2 different recipes, which are not averaged: "
        f"{differences[0]} in runs/x/final-ccl-AI-s0; {differences[1]} in runs/x/final-ccl-AI-s1."
    )
    assert "Name the runs" in (caught.value.hint or "")
    assert summary(RUNS / "x" / "final-ccl-AI-s1").cells  # naming them helps


def test_notes_on_what_is_hard_to_compare():
    for seed in range(3):
        write_cell(RUNS / "x", "ccl", "A", seed, top1=50.0, manifest="a" * 16)
    for seed in range(2):
        write_cell(
            RUNS / "x", "crd", "A", seed, method="ccl", top1=40.0, manifest="b" * 16, train={"epochs": 5}
        )
    videos, seeds, settings = summary().notes
    assert videos.startswith(
        "The videos of ucf51-split1 were not the same in all runs: aaaaaaaa: runs/x/final-ccl"
    )
    assert "bbbbbbbb: runs/x/final-crd-A-s0, runs/x/final-crd-A-s1." in videos
    assert seeds == "Numbers of seeds differ on ucf51-split1: 3, but crd A 2."
    assert settings.startswith(
        "Rows of ucf51-split1 differ in more than their method: train.epochs=300 in runs/x"
    )
    assert "train.epochs=5 in runs/x/final-crd-A-s0" in settings


# ---- formats


def test_narrow_terminals_get_more_tables(bench):
    table = bench[0][1]
    widest = lambda count: len(blocks(table, lambda each: len(each.header) <= count))  # noqa: E731
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


def test_markdown(bench):
    text = markdown_tables(*bench)
    assert "| method | A | I | AI |\n| --- | ---: | ---: | ---: |\n| baseline | 58.0 ± 1.0 |" in text
    assert "| ccl | **64.5** ± 0.5 | **66.0** ± 0.5 | **67.5** ± 0.5 |" in text
    assert "| (b) ccl w L\\_ct | 61.2" in text
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count("|") for line in lines.splitlines()}) == 1
    assert "- Failed (The loss is not finite): cckd A seed 2" in text


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
    assert [figure["mean"] for figure in record["figures"]] == [
        float(r["mean"]) if r["mean"] else None for r in rows
    ]
    assert record["figures"][1]["runs"][0]["value"] == 58.0
    assert record["notes"] == list(bench[1].notes)


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_no_cell_of_a_csv_is_a_formula(sign):
    write_cell(RUNS / "x", f"{sign}HYPERLINK(1)", "A", method="ccl", top1=50.0, data=f"{sign}d")
    results = summary()
    (row,) = csv.DictReader(io.StringIO(csv_tables(tables(results), results)))
    assert (row["method"], row["data"]) == (f"'{sign}HYPERLINK(1)", f"'{sign}d")


def well_formed(text: str) -> None:
    """Braces and environments are closed, and every line of a tabular fills its columns."""
    bare = re.sub(r"(?<!\\)%.*|\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for kind in ("begin", "end"):
        assert len(re.findall(rf"\\{kind}{{tabular}}", text)) == len(re.findall(r"\\label{", text))
    for spec, body in re.findall(r"\\begin{tabular}{(.*?)}\n(.*?)\\end{tabular}", text, re.S):
        width = len(spec.replace(" ", ""))
        for line in body.splitlines():
            if line.endswith(r"\\"):
                spans = [int(n) for n in re.findall(r"\\multicolumn{(\d+)}", line)]
                assert len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) - len(spans) == width, line


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


def test_hostile_labels_stay_text():
    label = r"50%_a&b#$^~\{x}|<i>[red]*y*`z`"
    for other in (label, "ccl"):
        write_run(folder := RUNS / "x" / f"r{len(other)}", setup="A", top1=50.0)
        cell = {"method": other, "setup": "A", "seed": 0, "table": "main", "phase": "final"}
        (folder / "cell.json").write_text(json.dumps(cell))
    results = summary()
    tex = latex_tables(tables(results), results)
    well_formed(tex)
    assert (
        r"50\%\_a\&b\#\$\textasciicircum{}\textasciitilde{}\textbackslash{}\{x\}$|$$<$i$>$[red]*y*`z`" in tex
    )
    shown = [
        line for line in markdown_tables(tables(results), results).splitlines() if line.startswith("| 50")
    ]
    assert shown == [r"| 50%\_a&b#$^~\\{x}\|\<i\>\[red\]\*y\*\`z\` | **50.0** |"]
    assert label in terminal_tables(tables(results), results, plain=False)
