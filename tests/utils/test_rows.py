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


def read(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return list(csv.reader(text.splitlines()))
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def write_and_stop(path):
    with row_file(path, FORM) as write:
        write(RECORDS[0])
        raise Stopped(signal.SIGTERM)


CSV = [["name", "value"], ["a", "1"], ["a", "0.5"], ["b\\nc", "2"]]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_a_file_is_there_when_all_records_are(tmp_path, suffix):
    path = tmp_path / "new" / f"out{suffix}"
    with row_file(path, FORM) as write:
        for record in RECORDS:
            write(record)
            assert not path.exists()
    assert read(path) == (CSV if suffix == ".csv" else RECORDS)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
def test_what_was_finished_is_kept_when_told_to_stop_and_the_file_from_before_stays(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    path.write_text("before")
    said = r"Stopped by SIGTERM\. Finished results are in '.*out\.partial\."
    with pytest.raises(Interrupted, match=said):
        write_and_stop(path)
    assert path.read_text() == "before"
    assert read(tmp_path / f"out.partial{suffix}") == (CSV[:3] if suffix == ".csv" else RECORDS[:1])


def test_any_other_error_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), row_file(tmp_path / "out.csv", FORM):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x"])
def test_no_text_becomes_a_formula(cell):
    assert FORM.text({"name": cell, "values": [-1]}) == f"'{cell},-1\n"


def test_what_cannot_be_printed_is_an_escape():
    name = "a\x1b[31m\tb\udcff\u202e"
    assert FORM.text({"name": name, "values": [1]}) == "a\\x1b[31m\\tb\\udcff\\u202e,1\n"


def test_a_name_that_says_no_format_and_a_folder_are_refused(tmp_path):
    wanted = r"Use \.csv, \.json, \.jsonl"
    with pytest.raises(UsageError, match=wanted), row_file(tmp_path / "out.txt", FORM):
        pass
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"), row_file(tmp_path / "out.csv", FORM):
        pass
