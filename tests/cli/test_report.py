from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ccl_cli.report.figures.registry import FIGURES
from ccl_cli.report.page.sections import SECTIONS
from tests.report.folders import write_bench, write_cell
from tests.report.pages import write_study

BENCH = Path("runs/b")


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return write_bench(tmp_path_factory.mktemp("report") / "b")


@pytest.fixture
def bench(benchmark):
    return Path(shutil.copytree(benchmark, BENCH))


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
    assert ["57.5" in ccl("report", "table", *more).out for more in ([], ["--paper"])] == [False, True]


BEGINS = {
    "t.md": "**Table 1.",
    "t.csv": "data,method,",
    "t.tex": "% \\usepackage{booktabs",
    "t.json": "{\n",
    "t.txt": "Table 1.",
    "t.md --format csv": "data,",
}


@pytest.mark.parametrize("name", BEGINS)
def test_the_format_or_the_files_name_tells_the_format(ccl, bench, name):
    file, *more = name.split()
    result = ccl("report", "table", "--output", f"new/{file}", *more)
    assert (result.code, result.out) == (0, "")
    assert f"Written to new/{file}." in result.err
    # Where the text has no room for notes, they are warnings.
    assert ("Warning: Failed (The loss" in result.err) == BEGINS[name].startswith(("data", "%"))
    assert Path("new", file).read_text().startswith(BEGINS[name])
    assert json.loads(ccl("report", "table", *more, "--json").out)["results"]


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
    ("words", "code", "sentence"),
    [
        (["table", "absent"], 4, "There is no folder 'absent'."),
        (["table", "--metric", "top2"], 2, "There is no metric 'top2'"),
        (["table", "--output", "runs"], 2, "'runs' is a folder."),
        (["table", "runs/mixed"], 2, "2 different recipes"),
        (["compare", "ccl", "cclx"], 2, "Did you mean 'ccl'?"),
        (["compare", "ccl", "baseline", "--output", "c.csv"], 2, "cannot be written as csv"),
        (["html", "--output", "runs"], 2, "'runs' is a folder."),
        (["figure", "tsne", "--output", "x.jpg"], 2, "Use the suffix .png, .svg or .pdf."),
        (["figure", "curves", "--split", "val"], 4, "No evaluated run"),
    ],
)
def test_errors(ccl, bench, words, code, sentence):
    write_cell(Path("runs/mixed"), "ccl", seed=0, top1=1.0, train={"epochs": 1})
    write_cell(Path("runs/mixed"), "ccl", seed=1, top1=1.0, train={"epochs": 2})
    write_cell(Path("runs/zz"), "ccl", top1=1.0, name="zz")  # the newest folder
    write_cell(Path("runs/zz"), "baseline", "", top1=1.0)
    before = set(Path().iterdir())
    result = ccl("report", *words)
    assert (result.code, result.out) == (code, "")
    assert sentence in result.err
    assert set(Path().iterdir()) == before


def test_no_runs_at_all(ccl):
    result = ccl("report", "table")
    assert (result.code, "There is no evaluated run" in result.err) == (4, True)


def test_a_file_is_the_same_whatever_the_terminal(ccl, bench, monkeypatch):
    texts = set()
    for columns in ("40", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        for words in (["table"], ["compare", "ccl", "baseline"]):
            assert ccl("report", *words, "--output", f"{words[0]}.txt").code == 0
        texts.add(Path("table.txt").read_text() + Path("compare.txt").read_text())
    (text,) = texts
    assert 80 < max(map(len, text.splitlines())) <= 100


# ---- the page


@pytest.fixture
def study(clips_folder):
    """A benchmark with videos."""
    return write_study(BENCH, clips_folder)


def test_the_newest_folder_and_the_usual_name(ccl, study):
    result = ccl("report", "html")
    assert (result.code, result.out) == (0, "")
    text = Path("report.html").read_text()
    help = ccl("report", "figure", "--help").out
    assert all(name in help for name in FIGURES)
    assert "ccl on clips" in text
    assert all(f'id="{section.key}"' in text for section in SECTIONS)
    assert ccl("-q", "report", "figure", "curves").err == ""
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")


def test_tables_and_figures_of_records_import_no_torch(study):
    lines = [["table", "--format", "latex"], ["compare", "ccl", "fitnet"]]
    lines += [["figure", name, "--output", f"{name}.svg"] for name in ("overview", "curves", "classes")]
    code = (
        "import sys\nfrom ccl_cli.__main__ import main\n"
        f"assert not any(main(['report', *words]) for words in {lines})\n"
        "raise SystemExit(sorted({'torch', 'sklearn', 'av', 'accelerate'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    assert Path("curves.svg").stat().st_size > 1000
