from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest

from ccl_cli.report.records.results import load_results
from ccl_cli.report.tables.build import tables
from ccl_cli.report.tables.csv_json import csv_tables, json_tables
from tests.report.folders import write_cell


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
    assert [figure["mean"] for figure in record["results"]] == [
        float(r["mean"]) if r["mean"] else None for r in rows
    ]
    assert record["results"][1]["runs"][0]["value"] == 58.0
    assert record["notes"] == list(bench[1].notes)


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_no_cell_of_a_csv_is_a_formula(sign):
    write_cell(Path("runs/x"), f"{sign}HYPERLINK(1)", "A", method="ccl", top1=50.0, data=f"{sign}d")
    results = load_results()
    (row,) = csv.DictReader(io.StringIO(csv_tables(tables(results), results)))
    assert (row["method"], row["data"]) == (f"'{sign}HYPERLINK(1)", f"'{sign}d")
