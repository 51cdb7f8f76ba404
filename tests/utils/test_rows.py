from __future__ import annotations

import csv
import json
import signal

import pytest

from ccl_cli.errors import Interrupted, UsageError
from ccl_cli.utils.rows import csv_form, row_file
from ccl_cli.utils.signals import Stopped

FORM = csv_form(("name", "value"), lambda record: [(record["name"], each) for each in record["values"]])
RECORDS = [{"name": "a", "values": [1, 0.5]}, {"name": "b\nc", "values": [2]}]
CSV = [["name", "value"], ["a", "1"], ["a", "0.5"], ["b\\nc", "2"]]


def read(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return list(csv.reader(text.splitlines()))
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def write(path, error=None):
    with row_file(path, FORM) as add:
        for record in RECORDS[:1] if error else RECORDS:
            add(record)
        if error:
            raise error


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_a_file_is_whole_or_partial_by_name_or_not_there(tmp_path, suffix):
    path = tmp_path / "new" / f"out{suffix}"
    with pytest.raises(ZeroDivisionError):
        write(path, ZeroDivisionError())
    assert list(path.parent.iterdir()) == []
    write(path)
    assert read(path) == (CSV if suffix == ".csv" else RECORDS)
    with pytest.raises(Interrupted, match=r"Stopped by SIGTERM\. Finished results are in '.*out\.partial\."):
        write(path, Stopped(signal.SIGTERM))
    assert read(path) == (CSV if suffix == ".csv" else RECORDS)
    assert read(path.with_stem("out.partial")) == (CSV[:3] if suffix == ".csv" else RECORDS[:1])
    assert len(list(path.parent.iterdir())) == 2


FORMULAS = [(f"{sign}1", f"'{sign}1") for sign in "=+-@"]


@pytest.mark.parametrize(("name", "cell"), [*FORMULAS, ("a\x1b\udcff\u202e", "a\\x1b\\udcff\\u202e")])
def test_no_text_becomes_a_formula_or_a_control_character(name, cell):
    assert FORM.text({"name": name, "values": [-1]}) == f"{cell},-1\n"


def test_a_name_without_a_format_and_a_folder_are_refused(tmp_path):
    (tmp_path / "out.csv").mkdir()
    for name, said in (("out.txt", r"Use \.csv, \.json, \.jsonl"), ("out.csv", "is a folder")):
        with pytest.raises(UsageError, match=said):
            write(tmp_path / name)
