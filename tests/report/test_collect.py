from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ccl_cli.errors import DataError
from ccl_cli.report.collect import abbreviations, clean, collect, seedless
from ccl_cli.report.table import summarise
from tests.report.folders import mark, write_bench, write_cell, write_failed, write_run

RUNS = Path("runs")


@pytest.mark.parametrize(
    ("method", "changed", "label", "table"),
    [
        ("ccl", {"ccl": {}}, "ccl", "main"),
        ({"ccl": {"nce_lambda": 0.5}}, {"ccl": {}}, "ccl", "main"),  # a default, written out
        ({"ccl": {"nce_lambda": 0.3}}, {"ccl": {"nce_lambda": 0.3}}, "ccl (nce_lambda=0.3)", "main"),
        ({"ccl": {"nce_lambda": 0.5}}, None, "ccl (nce_lambda=0.5)", "main"),  # not known to be the default
        ({"ccl": {"composition": False}}, {"ccl": {"composition": False}}, "ccl w/o composition", "ablation"),
        ({"ccl": {"contrast": "infonce"}}, None, "ccl w L_ct", "ablation"),
        ({"ccl": {"nce": False}}, None, "ccl w/o L_nce", "ablation"),
        ({"ccl": {"jsd": False}}, None, "ccl w/o L_jsd", "ablation"),
        (
            {"ccl": {"jsd": False, "temperature": {"audio": 0.3}}},
            None,
            "ccl w/o L_jsd (temperature.audio=0.3)",
            "ablation",
        ),
        ({"ccl": {}, "pkt": {"weight": 2}}, None, "ccl+pkt (weight=2)", "main"),
        ({"pkt": {"nce": False}}, None, "pkt (nce=False)", "main"),
    ],
)
def test_labels_of_runs_made_by_hand(method, changed, label, table):
    write_run(RUNS / "mine" / "a", method, top1=50.0, changed=changed)
    (run,) = collect().runs
    assert (run.method, run.table, run.setup) == (label, table, "AI")


@pytest.mark.parametrize("setup", ["", "A", "I", "AI"])
def test_setups_of_runs_made_by_hand(setup):
    write_run(RUNS / "mine" / "a", setup=setup, top1=50.0)
    assert collect().runs[0].setup == setup


def test_modalities_that_begin_alike_are_told_apart():
    for number, name in enumerate(("image:a", "imu:b", "text:c", "text2:d")):
        folder = write_run(RUNS / "x" / str(number), setup="", top1=50.0, data="d")
        summary = json.loads((folder / "summary.json").read_text()) | {"teachers": {name: {}}}
        (folder / "summary.json").write_text(json.dumps(summary))
    assert [run.setup for run in collect([RUNS / "x"]).runs] == ["Ima", "Imu", "Text", "Text2"]
    assert abbreviations(["audio", "image", "audio"]) == {"audio": "A", "image": "I"}


def test_what_a_bench_says_of_a_run_counts():
    folder = write_run(RUNS / "b" / "x", "ccl", "A", 4, top1=50.0)
    mark(folder, "a label\x1b[31m of\n its own", "first", 4, "ablation", "final")
    (run,) = collect().runs
    assert (run.method, run.setup, run.table, run.seed) == ("a label [31m of its own", "first", "ablation", 4)


def test_figures_by_data_and_split():
    folder = write_run(RUNS / "mine" / "a", top1=50.0, retrieval=(1.0, 2.0, 3.0), data="my-set")
    summary = json.loads((folder / "summary.json").read_text())
    summary["evaluation"] |= {
        "other-test": {"recognition": {"top1": 7}},
        "my-set-val": {"recognition": {"top1": 9}},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "eval-other-test.json").write_text(json.dumps({"data": {"manifest": "abc"}}))
    (run,) = collect().runs
    assert run.figures == {
        ("my-set", "top1"): 50.0,
        ("my-set", "top5"): 70.0,
        ("my-set", "mean_class"): 49.0,
        ("my-set", "r1"): 1.0,
        ("my-set", "r5"): 2.0,
        ("my-set", "r10"): 3.0,
        ("my-set", "map"): 10.0,
        ("other", "top1"): 7.0,
    }
    assert run.manifests == {"my-set": "f" * 16, "other": "abc"}
    assert collect(split="val").runs[0].figures == {("my-set", "top1"): 9.0}


def test_without_a_name_the_newest_folder_with_an_evaluated_run():
    write_run(RUNS / "old" / "a", top1=1.0)
    write_run(RUNS / "new" / "a", seed=0, top1=2.0)
    write_run(RUNS / "new" / "b", seed=1, top1=3.0)
    write_run(RUNS / "newest" / "a")  # not evaluated
    assert [run.folder for run in collect().runs] == [RUNS / "new" / "a", RUNS / "new" / "b"]


def test_runs_and_folders_may_be_mixed_and_count_once():
    first, second = write_run(RUNS / "one" / "a", top1=1.0), write_run(RUNS / "two" / "b", seed=1, top1=2.0)
    named = [first, RUNS / "two", second, Path.cwd() / RUNS]
    assert {run.folder for run in collect(named).runs} == {first, second}


def test_what_is_left_out_is_said():
    write_run(RUNS / "x" / "good", top1=50.0)
    write_run(RUNS / "x" / "pending", seed=1)
    write_run(RUNS / "x" / "short", seed=2, top1=50.0, finished=False)
    broken = write_run(RUNS / "x" / "broken", seed=3, top1=50.0)
    (broken / "recipe.yaml").write_text("optim: {lr: -1}\n")
    cut = write_run(RUNS / "x" / "cut", seed=4, top1=50.0)
    (cut / "summary.json").write_text('{"evaluation": {')
    write_cell(RUNS / "x", "ccl", seed=5, phase="tune", top1=99.0)
    found = collect([RUNS / "x"])
    assert [run.folder.name for run in found.runs] == ["good"]
    said = "\n".join(found.notes)
    assert "not evaluated on its test videos yet: runs/x/cut, runs/x/pending." in said
    assert "stopped before its end: runs/x/short." in said
    assert "optim.lr: must be greater than 0" in said
    assert "tune" not in said


@pytest.mark.parametrize("paths", [(), (Path("absent"),), (Path("empty"),), (Path("runs/x"),)])
def test_nothing_to_report(paths):
    Path("empty").mkdir()
    write_run(RUNS / "x" / "a")
    with pytest.raises(DataError):
        collect(paths)


def test_of_one_seed_run_twice_the_newest_counts():
    write_run(RUNS / "x" / "newer-by-name", top1=10.0)
    write_run(RUNS / "x" / "a", top1=20.0, name="another")  # the name is no part of what was trained
    (run,), notes = collect().runs, collect().notes
    assert run.figures["ucf51-split1", "top1"] == 20.0
    assert notes == (
        "ccl AI, seed 0, was run 2 times with one recipe: on ucf51-split1 the newest counts, runs/x/a; not "
        "runs/x/newer-by-name.",
    )
    os.utime(RUNS / "x" / "newer-by-name" / "summary.json", (2e9, 2e9))
    assert collect().runs[0].figures["ucf51-split1", "top1"] == 10.0


def test_the_newest_counts_data_set_by_data_set():
    """The older run was evaluated on one more data set: there it still counts, and nowhere twice."""
    older = write_run(RUNS / "x" / "older", top1=10.0, data="d1")
    summary = json.loads((older / "summary.json").read_text())
    summary["evaluation"]["d2-test"] = {"recognition": {"top1": 11.0}}
    (older / "summary.json").write_text(json.dumps(summary))
    os.utime(older / "summary.json", (1e9, 1e9))
    write_run(RUNS / "x" / "newer", top1=20.0, data="d1")
    found = {run.folder.name: run for run in collect().runs}
    assert found["older"].figures == {("d2", "top1"): 11.0}
    assert found["older"].manifests.keys() == {"d2"}
    assert found["newer"].figures["d1", "top1"] == 20.0
    cells = summarise(collect()).cells
    assert [run.folder.name for run in cells["d1", "ccl", "AI", "top1"].runs] == ["newer"]
    assert collect().notes == (
        "ccl AI, seed 0, was run 2 times with one recipe: on d1 the newest counts, runs/x/newer; not runs/x/older.",
    )


def test_a_failed_run_that_was_repeated_is_forgotten():
    write_failed(RUNS / "x", "ccl", "AI", 0)
    write_failed(RUNS / "x", "ccl", "AI", 1)
    write_cell(RUNS / "x", "ccl", "AI", 0, top1=1.0)
    found = collect()
    assert ([run.seed for run in found.runs], [run.seed for run in found.failed]) == ([0], [1])
    assert found.failed[0].error == "The loss is not finite."


def test_only_seed_name_and_what_does_not_matter_may_differ_within_a_recipe():
    write_run(RUNS / "x" / "a", seed=0, top1=1.0, train={"workers": 1})
    write_run(RUNS / "x" / "b", seed=1, top1=1.0, train={"workers": 2}, name="b", description="words")
    write_run(RUNS / "x" / "c", seed=2, top1=1.0, train={"epochs": 3})
    a, b, c = (seedless(run.recipe) for run in sorted(collect().runs, key=lambda run: run.seed))
    assert a == b != c


def test_clean():
    assert clean("a\n b\t\x1b[0mc\u202e") == "a b [0mc"


def test_a_whole_bench(tmp_path):
    found = collect([write_bench(tmp_path / "bench")])
    assert len(found.runs) == 3 + 9 + 8 + 9 + 18
    assert len(found.failed) == 1 + 3
    assert found.notes == ()
