from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ccl_cli.__main__ import main
from ccl_cli.cli.demo import _print
from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Recipe
from ccl_cli.demo import Demo, summary, with_correspondence
from ccl_cli.errors import RecipeError
from ccl_cli.report.records.results import load_results
from tests.report.folders import write_cell, write_failed


@pytest.fixture
def done():
    """Made by hand: CCL two and four points above the baseline; FitNet with audio alone, and its seed 1 failed."""
    root = Path("runs/demo")
    for seed, baseline, gain in ((0, 40.0, 2.0), (1, 50.0, 4.0)):
        write_cell(root, "baseline", "", seed, method="baseline", top1=baseline, retrieval=(30, 50, 60))
        write_cell(root, "ccl", "AI", seed, top1=baseline + gain, retrieval=(31, 50, 60))
    write_cell(root, "fitnet", "A", 0, method="fitnet", top1=10.0, retrieval=(9, 50, 60))
    return Demo(load_results([root]), (root / "fitnet-A-s1",), root / "report.html", 12.34)


def test_the_summary_holds_means_deviations_and_what_is_over_the_baseline(done):
    found = json.loads(json.dumps(summary(done)))
    top1 = found["methods"]["ccl"]["AI"]["top1"]
    assert (top1["mean"], top1["by_seed"]) == (48.0, {"0": 42.0, "1": 54.0})
    assert top1["sd"] == pytest.approx(2**0.5 * 6)
    assert top1["over_baseline"]["mean"] == pytest.approx(3.0)
    # Student's t, one degree of freedom
    assert top1["over_baseline"]["interval"] == pytest.approx([3 - 12.706, 3 + 12.706], abs=1e-3)
    assert found["methods"]["baseline"]["AI"]["top1"]["mean"] == 45.0  # it stands in every column
    assert found["methods"]["fitnet"]["A"]["top1"]["sd"] is None
    assert set(found["methods"]["fitnet"]) == {"A"}
    assert (found["report"], found["failed"]) == ("runs/demo/report.html", ["runs/demo/fitnet-A-s1"])


def test_what_was_found_is_said_first_then_the_tables_then_where_the_page_is(done, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _print(done)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("With both teachers the student gets 3.0 points more top-1 than without")
    assert [line[:8] for line in lines if line.startswith("Table ")] == ["Table 1.", "Table 2."]
    table = lines[lines.index("Difference to the baseline in percentage points, paired by seed:") + 1 :]
    assert [line.split()[:3] for line in table[1:3]] == [["fitnet", "A", "-30.0"], ["ccl", "AI", "+3.0"]]
    assert table[-1] == "Report: runs/demo/report.html"
    assert max(map(len, lines)) <= 80


def test_without_a_baseline_the_demo_says_so_and_shows_the_rest(done, capsys):
    for seed in (0, 1):
        shutil.rmtree(f"runs/demo/final-baseline--s{seed}")
        write_failed(Path("runs/demo"), "baseline", "", seed)
    _print(replace(done, results=load_results([Path("runs/demo")])))
    out = capsys.readouterr().out
    assert out.startswith("The gain from the teachers is not known")
    assert "Table 1." in out
    assert "Difference to the baseline" not in out


def test_the_dial_changes_the_data_and_nothing_else():
    recipe = load_recipe("demo", {"data": "synthetic?noise=0.5"})
    dialled = with_correspondence(recipe, 0.25)
    assert dialled.data == "synthetic?noise=0.5&correspondence=0.25"
    assert dialled.model_copy(update={"data": recipe.data}) == recipe
    with pytest.raises(RecipeError, match="'ucf51' has no option 'correspondence'"):
        with_correspondence(Recipe(data="ucf51"), 0.25)
    assert main(["demo", "--correspondence", "1.5"]) == 2


# A small demo: four actions, one pass, one seed, and teachers that have seen few clips.
SMALL = """
import json
import sys
from pathlib import Path

from ccl_cli import demo
from ccl_cli.config.load import load_recipe

if __name__ == "__main__":
    changes = {
        "data": "synthetic?motion_groups=2&clips=4&val_clips=0&test_clips=3",
        "train.epochs": 1,
        "optim.warmup_epochs": 0,
        "bench.seeds": [0],
    }
    demo._OWN_TASKS = {name: f"{data}&clips=4&test_clips=2" for name, data in demo._OWN_TASKS.items()}
    for page in sys.argv[1:]:
        done = demo.run_demo(load_recipe("demo", changes), Path(page), jobs=2)
        stamps = [path.stat().st_mtime_ns for path in sorted(Path("runs").glob("*/*/model.safetensors"))]
        print(json.dumps([demo.summary(done), stamps]))
"""


@pytest.mark.slow
def test_from_nothing_to_a_page_and_again():
    """With its real teachers; the second call finds everything there.

    In a process of its own: the runs' server keeps the environment that it was started in.
    """
    Path("small.py").write_text(SMALL)
    command = [sys.executable, "small.py", "first.html", "second.html"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    (found, stamps), (again, later) = map(json.loads, ended.stdout.splitlines())
    assert found["failed"] == []
    assert {name: set(row) for name, row in found["methods"].items()} == {
        "baseline": {"A", "I", "AI"},
        "fitnet": {"A"},
        "ccl": {"A", "I", "AI"},
    }
    assert "Audio-video correspondence" in Path("first.html").read_text()
    assert len(stamps) == 5
    assert later == stamps
    assert len(list(Path("cache/weights").iterdir())) == 2
    assert again["methods"] == found["methods"]
    assert Path("second.html").is_file()
