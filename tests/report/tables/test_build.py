from __future__ import annotations

from pathlib import Path

import pytest

from ccl_cli.errors import DataError, UsageError
from ccl_cli.report.records.results import Column, load_results
from ccl_cli.report.tables.build import block, entry, tables
from tests.report.folders import write_cell, write_failed, write_run

RUNS = Path("runs")


def one(number: int, *paths: Path, **rest):
    (table,) = tables(load_results(paths), [number], **rest)
    return table


def texts(table) -> list[list[str]]:
    """What stands in each row, the best in stars."""
    lines = []
    for row in table.rows:
        entries = [entry(table, row, column) for column in table.columns]
        lines.append([row, *(f"{'*' * e.best}{e.mean} {e.spread}".strip() for e in entries)])
    return lines


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


def test_rows_the_paper_does_not_have_come_last_and_data_sets_stand_side_by_side():
    for data in ("activitynet", "zoo", "ucf51-split1", "birds"):
        for label in ("zz", "ccl", "kd", "fitnet"):
            write_cell(RUNS / data, label, "A", method="ccl", data=data, top1=50.0)
    table = one(1, RUNS)
    assert table.rows == ("fitnet", "ccl", "kd", "zz")
    assert [column.data for column in table.columns] == ["ucf51-split1", "activitynet", "birds", "zoo"]


def test_ties_that_look_equal_are_all_best_and_a_single_row_is_not():
    for label, value in (("a", 60.01), ("b", 60.04), ("c", 59.0)):
        write_cell(RUNS / "x", label, "A", method="ccl", top1=value)
    write_cell(RUNS / "x", "c", "I", method="ccl", top1=60.0)
    assert texts(one(1, RUNS / "x")) == [["a", "*60.0", ""], ["b", "*60.0", ""], ["c", "59.0", "60.0"]]


def test_a_baseline_stands_in_every_setup_and_the_papers_figures_beside_ours():
    write_cell(RUNS / "x", "baseline", "", top1=40.0)
    assert [column.setup for column in one(1, RUNS / "x").columns] == [""]
    write_cell(RUNS / "x", "ccl", "AI", top1=50.0)
    write_cell(RUNS / "x", "cckd", "A", method="ccl", top1=45.0)
    table = one(1, RUNS / "x", printed=True)
    assert texts(table) == [
        ["baseline", "40.0", "57.5", "40.0", "57.5"],
        ["cckd", "*45.0", "57.7", "", "66.3"],
        ["ccl", "", "64.9", "*50.0", "70.0"],
    ]
    assert [label for label, _ in block(table, table.columns).rows] == ["baseline", "cckd (COR)", "ccl"]


def test_a_failed_cell_of_a_bench_is_a_dash_for_the_data_of_that_bench_only():
    write_cell(RUNS / "one", "ccl", "A", data="d1", top1=1.0)
    write_failed(RUNS / "one", "crd", "A", 0)
    write_cell(RUNS / "two", "ccl", "A", data="d2", top1=2.0)
    assert texts(one(1, RUNS)) == [["crd", "-", ""], ["ccl", "1.0", "2.0"]]
    note = "Failed (The loss is not finite): crd A seed 0 (runs/one/failed-crd-A-s0)."
    assert load_results([RUNS]).notes == (note,)


@pytest.mark.parametrize(
    ("numbers", "metrics", "expected"),
    [
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
        tables(load_results(), numbers, metrics)
