from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.folders import write_bench, write_cell, write_run

BENCH = Path("runs/b")


@pytest.fixture
def bench():
    return write_bench(BENCH)


def test_tables_of_the_newest_folder(ccl, bench):
    result = ccl("report", "table")
    assert (result.code, result.err) == (0, "")
    assert [line.split(":")[0] for line in result.out.splitlines() if line.startswith("Table")] == [
        "Table 1. Video recognition",
        *["Table 2. Video retrieval"] * 3,
        "Table 3. Ablation of ccl",
    ]
    assert "Note: Failed (The loss is not finite): cckd A seed 2" in result.out


def test_options_of_table(ccl, bench):
    out = ccl("report", "table", str(bench), "--table", "2", "--metric", "map", "--paper", "--runs").out
    assert out.startswith("Table 2. Video retrieval: ucf51-split1, mAP (%)\n")
    assert "cckd (COR)" in out
    assert "\nRuns:\nucf51-split1 baseline: seed 0 " in out
    assert "57.5" in ccl("report", "table", "--table", "1", "--paper").out
    assert "57.5" not in ccl("report", "table", "--table", "1").out


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("t.md", "**Table 1."),
        ("t.csv", "data,method,"),
        ("t.tex", "% \\usepackage{booktabs"),
        ("t.json", "{\n"),
        ("t.txt", "Table 1."),
    ],
)
def test_the_output_files_name_tells_the_format(ccl, bench, name, begins):
    result = ccl("report", "table", "--output", f"new/{name}")
    assert (result.code, result.out) == (0, "")
    assert f"Written to new/{name}." in result.err
    assert Path("new", name).read_text().startswith(begins)
    assert [path.name for path in Path("new").iterdir()] == [name]


def test_format_beats_the_files_name_and_json_both(ccl, bench):
    ccl("report", "table", "--format", "csv", "--output", "t.md")
    assert Path("t.md").read_text().startswith("data,")
    assert json.loads(ccl("report", "table", "--format", "csv", "--json").out)["figures"]


@pytest.mark.parametrize("style", ["csv", "latex"])
def test_where_the_text_has_no_room_for_notes_they_are_warnings(ccl, bench, style):
    result = ccl("report", "table", "--format", style)
    assert "Warning: Failed (The loss is not finite)" in result.err
    assert ccl("-q", "report", "table", "--format", style).err == ""


def test_compare(ccl, bench):
    result = ccl("report", "compare", "ccl", "baseline", "--setup", "AI")
    assert (result.code, result.err) == (0, "")
    assert "ccl is better than baseline in AI" in result.out
    record = json.loads(
        ccl("report", "compare", "ccl", "baseline", str(bench), "--metric", "r5", "--json").out
    )
    assert [(c["setup"], c["metric"], c["n"]) for c in record["comparisons"]] == [
        (setup, "r5", 3) for setup in ("A", "I", "AI")
    ]
    ccl("report", "compare", "ccl", "baseline", "--output", "c.md")
    assert Path("c.md").read_text().startswith("**ccl minus baseline on")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["table", "absent"], 4, "There is no folder 'absent'."),
        (["table", "--table", "4"], 2, "'--table'"),
        (["table", "--metric", "top2"], 2, "There is no metric 'top2'"),
        (["table", "--output", "runs"], 2, "'runs' is a folder."),
        (["table", "runs/mixed"], 2, "2 different recipes"),
        (["compare", "ccl"], 2, "Missing argument"),
        (["compare", "ccl", "cclx"], 2, "Did you mean 'ccl'?"),
        (["compare", "ccl", "baseline", "--output", "c.csv"], 2, "not written as csv"),
    ],
)
def test_errors(ccl, bench, words, code, said):
    write_cell(Path("runs/mixed"), "ccl", seed=0, top1=1.0, train={"epochs": 1})
    write_cell(Path("runs/mixed"), "ccl", seed=1, top1=1.0, train={"epochs": 2})
    write_cell(Path("runs/zz"), "ccl", top1=1.0, name="zz")  # the newest folder
    write_cell(Path("runs/zz"), "baseline", "", top1=1.0)
    result = ccl("report", *words)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert not Path("c.csv").exists()


def test_no_runs_at_all(ccl):
    result = ccl("report", "table")
    assert (result.code, result.err.splitlines()) == (
        4,
        ["Error: There is no evaluated run under 'runs'.", "  Evaluate one with `ccl eval`."],
    )


def test_a_terminal_gets_bold_and_no_stars(bench, monkeypatch):
    from ccl_cli.report.results import load_results
    from ccl_cli.report.tables import tables
    from ccl_cli.report.writers import terminal_tables

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    results = load_results([bench])
    text = terminal_tables(tables(results, [1]), results, plain=False)
    assert "\x1b[1m64.5 ± 0.5" in text
    assert "*" not in text


@pytest.mark.parametrize("words", [["table", "--format", "latex"], ["compare", "ccl", "baseline"]])
def test_reports_import_no_torch(words):
    write_run(Path("runs/mine/a"), top1=50.0, retrieval=(1.0, 2.0, 3.0))
    write_run(Path("runs/mine/b"), "baseline", "", top1=40.0)
    code = (
        "import sys\nfrom ccl_cli.__main__ import main\n"
        f"assert main({['report', *words]}) == 0\n"
        "print(*({'torch', 'timm', 'av', 'accelerate'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_a_file_is_the_same_whatever_the_terminal(ccl, bench, monkeypatch):
    texts = set()
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        for words in (["table"], ["compare", "ccl", "baseline"]):
            assert ccl("report", *words, "--output", f"{words[0]}.txt").code == 0
        texts.add(Path("table.txt").read_text() + Path("compare.txt").read_text())
    (text,) = texts
    assert 80 < max(map(len, text.splitlines())) <= 100
