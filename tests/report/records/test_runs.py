from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import ccl_cli
from ccl_cli.errors import DataError
from ccl_cli.report.records.results import summarise
from ccl_cli.report.records.run import abbreviations
from ccl_cli.report.records.runs import read_runs
from tests.report.folders import mark, write_cell, write_failed, write_run

RUNS = Path("runs")


def change(folder, **entries):
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | entries))


@pytest.mark.parametrize(
    ("method", "changed", "label", "ablation"),
    [
        ("ccl", {"ccl": {}}, "ccl", False),
        ({"ccl": {"nce_lambda": 0.5}}, {"ccl": {}}, "ccl", False),  # a default, written out
        ({"ccl": {"nce_lambda": 0.5}}, None, "ccl (nce_lambda=0.5)", False),  # not known to be the default
        ({"ccl": {"composition": False}}, {"ccl": {"composition": False}}, "ccl w/o composition", True),
        ({"ccl": {"contrast": "infonce"}}, None, "ccl w L_ct", True),
        ({"ccl": {"nce": False}}, None, "ccl w/o L_nce", True),
        (
            {"ccl": {"jsd": False, "temperature": {"audio": 0.3}}},
            None,
            "ccl w/o L_jsd (temperature.audio=0.3)",
            True,
        ),
        ({"ccl": {}, "pkt": {"weight": 2}}, None, "ccl+pkt (weight=2)", False),
        ({"pkt": {"nce": False}}, None, "pkt (nce=False)", False),
    ],
)
def test_labels_of_runs_made_by_hand(method, changed, label, ablation):
    write_run(RUNS / "mine" / "a", method, top1=50.0, changed=changed)
    (run,) = read_runs().evaluated
    assert (run.method, run.ablation, run.setup) == (label, ablation, "AI")


def test_setups_are_the_initials_of_modalities_as_long_as_needed():
    for number, teachers in enumerate(({}, {"image:a": {}}, {"imu:b": {}, "text:c": {}}, {"text2:d": {}})):
        change(write_run(RUNS / "x" / str(number), setup="", top1=50.0), teachers=teachers)
    assert [run.setup for run in read_runs([RUNS / "x"]).evaluated] == ["", "Ima", "ImuText", "Text2"]
    assert abbreviations(["audio", "image", "audio"]) == {"audio": "A", "image": "I"}


def test_what_a_bench_says_of_a_run_counts():
    folder = write_run(RUNS / "b" / "x", "ccl", "A", 4, top1=50.0)
    mark(folder, "a label\x1b[31m of\n its own", "first", 4, "ablation", "final")
    (run,) = read_runs().evaluated
    assert (run.method, run.setup, run.ablation, run.seed) == ("a label [31m of its own", "first", True, 4)


def test_the_frame_has_a_row_for_each_run_data_set_and_metric():
    folder = write_cell(RUNS / "x", "ccl", "AI", 3, top1=50.0, retrieval=(1.0, 2.0, 3.0), data="d")
    evaluation = json.loads((folder / "summary.json").read_text())["evaluation"]
    others = {"e-test": {"recognition": {"top1": 7}}, "d-val": {"recognition": {"top1": 9}}}
    change(folder, evaluation=evaluation | others)
    (folder / "eval-e-test.json").write_text(json.dumps({"data": {"manifest": "abc"}}))
    write_failed(RUNS / "x", "crd", "A", 4)
    frame = ccl_cli.runs(RUNS / "x")
    assert list(frame.columns) == [
        *("data", "method", "setup", "metric", "seed", "value", "error"),
        *("ablation", "settings", "recipe", "manifest", "folder"),
    ]
    done, failed = (frame[frame["method"] == name].set_index(["data", "metric"]) for name in ("ccl", "crd"))
    assert done["value"].to_dict() == {
        **{("d", "top1"): 50.0, ("d", "top5"): 70.0, ("d", "mean_class"): 49.0, ("e", "top1"): 7.0},
        **{("d", "r1"): 1.0, ("d", "r5"): 2.0, ("d", "r10"): 3.0, ("d", "map"): 10.0},
    }
    assert done["manifest"].unique().tolist() == ["f" * 16, "abc"]
    assert failed["value"].isna().all()
    assert failed.index.tolist() == done.index.tolist()
    assert set(failed["error"]) == {"The loss is not finite."}
    assert ccl_cli.runs(folder, split="val")["value"].tolist() == [9.0]


def test_without_a_name_the_newest_folder_with_an_evaluated_run():
    write_run(RUNS / "old" / "a", top1=1.0)
    write_run(RUNS / "new" / "a", seed=0, top1=2.0)
    write_run(RUNS / "new" / "b", seed=1, top1=3.0)
    write_run(RUNS / "newest" / "a")  # not evaluated
    assert [run.folder for run in read_runs().evaluated] == [RUNS / "new" / "a", RUNS / "new" / "b"]
    for seed, name in enumerate(("teachers", "baseline")):  # runs with a folder of their own belong together
        write_run(RUNS / name, seed=seed, top1=2.0)
    assert [run.folder for run in read_runs().evaluated] == [RUNS / "teachers", RUNS / "baseline"]


def test_runs_and_folders_may_be_mixed_and_count_once():
    first, second = write_run(RUNS / "one" / "a", top1=1.0), write_run(RUNS / "two" / "b", seed=1, top1=2.0)
    named = [first, RUNS / "two", second, Path.cwd() / RUNS]
    assert {run.folder for run in read_runs(named).evaluated} == {first, second}


def test_what_is_left_out_is_said():
    write_run(RUNS / "x" / "good", top1=50.0)
    write_run(RUNS / "x" / "pending", seed=1)
    write_run(RUNS / "x" / "short", seed=2, top1=50.0, finished=False)
    broken = write_run(RUNS / "x" / "broken", seed=3, top1=50.0)
    (broken / "recipe.yaml").write_text("optim: {lr: -1}\n")
    cut = write_run(RUNS / "x" / "cut", seed=4, top1=50.0)
    (cut / "summary.json").write_text('{"evaluation": {')
    write_cell(RUNS / "x", "ccl", seed=5, phase="tune", top1=99.0)
    read = read_runs([RUNS / "x"])
    assert [run.folder.name for run in read.evaluated] == ["good"]
    notes = "\n".join(read.notes)
    assert "not evaluated on its test videos yet: runs/x/cut, runs/x/pending." in notes
    assert "stopped before its end: runs/x/short." in notes
    assert "optim.lr: must be greater than 0" in notes
    assert "tune" not in notes


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "no evaluated run"),
        (["absent"], "no folder"),
        (["empty"], "no runs"),
        (["runs/x"], "--split val"),
    ],
)
def test_nothing_to_report(paths, words):
    Path("empty").mkdir()
    write_run(RUNS / "x" / "a")
    with pytest.raises(DataError, match=words):
        read_runs([*map(Path, paths)], "val")


def test_of_repeated_runs_the_newest_counts_data_set_by_data_set():
    """The older run was evaluated on one more data set: there it still counts, and nowhere twice."""
    older = write_run(RUNS / "x" / "older", top1=10.0, data="d1")
    change(older, evaluation={f"{data}-test": {"recognition": {"top1": 11.0}} for data in ("d1", "d2")})
    os.utime(older / "summary.json", (1e9, 1e9))
    write_run(RUNS / "x" / "a", top1=20.0, data="d1", name="another")  # the name is no part of the training
    counted = ccl_cli.runs().groupby("folder")["data"].unique()
    assert {folder: list(data) for folder, data in counted.items()} == {
        "runs/x/older": ["d2"],
        "runs/x/a": ["d1"],
    }
    (cell,) = (
        cell for cell in summarise(read_runs()).cells.values() if cell.data == "d1" and cell.metric == "top1"
    )
    assert cell.mean == 20.0
    assert read_runs().notes == (
        "ccl AI, seed 0, was run 2 times with one recipe: on d1 the newest counts, runs/x/a; not runs/x/older.",
    )


def test_a_failed_run_that_was_repeated_is_forgotten():
    write_failed(RUNS / "x", "ccl", "AI", 0)
    write_failed(RUNS / "x", "ccl", "AI", 1)
    write_cell(RUNS / "x", "ccl", "AI", 0, top1=1.0)
    read = read_runs()
    assert ([run.seed for run in read.evaluated], [run.seed for run in read.failed]) == ([0], [1])
    assert read.failed[0].error == "The loss is not finite."


def test_only_seed_name_and_what_does_not_matter_may_differ_within_a_recipe():
    write_run(RUNS / "x" / "a", seed=0, top1=1.0, train={"workers": 1})
    write_run(RUNS / "x" / "b", seed=1, top1=1.0, train={"workers": 2}, name="b", description="words")
    write_run(RUNS / "x" / "c", seed=2, top1=1.0, train={"epochs": 3})
    a, b, c = (run.settings for run in sorted(read_runs().evaluated, key=lambda run: run.seed))
    assert a == b != c
