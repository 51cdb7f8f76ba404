"""Small benchmarks on real files; slow ones in the processes that a user's would run in."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ccl_cli.__main__ import main
from ccl_cli.bench import cell as of_cell
from ccl_cli.bench.matrix import final_cells, tune_cells
from ccl_cli.bench.run import best, choose, folder_of, run_bench, scores, unfinished
from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import CclError, DataError, UsageError
from ccl_cli.executors.part import Part
from ccl_cli.executors.work import Work, write_error


def values(clips_folder, **changes):
    return {
        "name": "small",
        "data": f"folder:{clips_folder / 'set'}",
        "student": "r2plus1d_tiny",
        "clip": {"frames": 4, "size": 32, "short_side": 48, "flip": 0.0},
        "train": {"epochs": 2, "batch_size": 6, "workers": 0, "log_every": 1, "precision": "fp32"},
        "bench": {
            "setups": {"A": f"audio:precomputed@{clips_folder / 'audio.npz'}"},
            "methods": {"baseline": "baseline", "fitnet": "fitnet"},
            "seeds": [0],
            **changes,
        },
    }


def recipe(clips_folder, *, jobs=None, **changes):
    return Recipe.model_validate(values(clips_folder, **changes) | {"executor": {"jobs": jobs}})


def stamps(root):
    return {path.parent.name: path.stat().st_mtime_ns for path in root.glob("*/model.safetensors")}


@pytest.fixture
def here(monkeypatch):
    """Cells are trained one after the other in this process: a process for each takes longer than its training."""

    def run(work, *_):
        for item in work.unfinished().items.values():
            of_cell.run(item)
        return {}

    monkeypatch.setattr("ccl_cli.bench.run.map_items", run)


METHODS = {
    "diverges": {"method": "fitnet", "optim": {"lr": 1e30}},
    "baseline": "baseline",
    "fitnet": "fitnet",
}


@pytest.mark.slow
def test_finished_cells_are_kept_and_a_broken_one_does_not_stop_the_rest(clips_folder, capfd):
    experiment = recipe(clips_folder, methods=METHODS, jobs=2)
    root = folder_of(experiment)
    folders, (broken,) = run_bench(experiment)
    assert capfd.readouterr().out == ""  # for the caller's results
    assert broken.name.startswith("diverges")
    error = json.loads((broken / "error.json").read_text())
    assert ("not finite" in error["message"], error["exit_code"]) == (True, 1)
    assert "Error:" in (broken / "log.txt").read_text()
    assert folders == [root / cell.folder for cell in final_cells(experiment, {})]
    for method, path in zip(METHODS, folders, strict=True):
        if path != broken:
            assert json.loads((path / "cell.json").read_text())["method"] == method
            (found,) = json.loads((path / "summary.json").read_text())["evaluation"].values()
            assert {"recognition", "retrieval"} == set(found)
    before = stamps(root)
    wider = recipe(clips_folder, methods=METHODS | {"pkt": "pkt"})
    assert [cell.method for cell in unfinished(root, final_cells(wider, {}))] == ["diverges", "pkt"]
    assert run_bench(wider).failed == [broken]
    assert before.items() <= stamps(root).items()
    assert len(stamps(root)) == 3


@pytest.mark.usefixtures("here")
def test_a_weight_is_chosen_on_videos_of_the_training_list(clips_folder):
    experiment = recipe(
        clips_folder, methods={"fitnet": "fitnet"}, tune={"grid": [0.001, 1.0], "holdout": 0.34, "epochs": 1}
    )
    root = folder_of(experiment)
    (folder,), failed = run_bench(experiment)
    assert failed == []
    cells = tune_cells(experiment, hold_out=True)
    for cell in cells:
        summary = json.loads((root / cell.folder / "summary.json").read_text())
        assert [name.rpartition("-")[2] for name in summary["evaluation"]] == ["val"]
        assert summary["data"]["train"] == 8  # of 12
    tried, factors = scores(root, cells)["fitnet", "A"], choose(root, cells)
    factor = factors["fitnet", "A"]
    assert tried[factor] == max(tried.values())
    (final,) = final_cells(experiment, factors)
    assert final.recipe.method["fitnet"].get("weight", 100.0) == pytest.approx(100.0 * factor)
    assert folder == root / final.folder
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["data"]["train"] == 12
    assert [name.rpartition("-")[2] for name in summary["evaluation"]] == ["test"]


@pytest.mark.usefixtures("here")
def test_each_run_is_compared_with_its_own_data(clips_folder):
    """A row may train on other data, or set videos aside; other data in place of its own needs another name."""
    rows = {"baseline": "baseline", "less": {"method": "baseline", "holdout": 0.34}}
    experiment = recipe(clips_folder, methods=rows)
    before = run_bench(experiment)
    assert before.failed == []
    assert run_bench(experiment) == before
    path = before.folders[0] / "summary.json"
    path.write_text(path.read_text().replace(json.loads(path.read_text())["data"]["manifest"], "0" * 16))
    with pytest.raises(UsageError, match="data set has changed"):
        run_bench(experiment)


def test_what_is_missing_is_listed_before_the_first_run(clips_folder, tmp_path, capsys):
    """Otherwise every cell fails by itself, for the same reason."""
    content = values(clips_folder, setups={"A": "audio:cnn14"}) | {"data": "folder:nowhere"}
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(content))
    assert main(["bench", str(tmp_path / "bench.yaml"), "--dry-run"]) == 0
    planned = capsys.readouterr()
    assert "2 runs, 2 to do" in planned.out
    assert main(["bench", str(tmp_path / "bench.yaml")]) == DataError.exit_code
    for listed in (planned.err, capsys.readouterr().err):
        assert "nowhere" in listed
        assert "ccl teachers pull audio:cnn14" in listed
    assert not folder_of(Recipe.model_validate(content)).exists()


def evaluated(root, cell, top1):
    """What a cell leaves."""
    folder = root / cell.folder
    folder.mkdir(parents=True)
    found = {"recognition": {"top1": top1}, "retrieval": {"r1": 0.0}}
    summary = {"finished": True, "evaluation": {"x-val": found, "x-test": found}}
    (folder / "summary.json").write_text(json.dumps(summary))


def tuned(clips_folder, tops):
    """A benchmark that chooses, and its folder, where factors have these figures, one of each seed."""
    seeds = range(len(next(iter(tops.values()))))
    tune = {"grid": list(tops), "seeds": list(seeds)}
    experiment = recipe(clips_folder, methods={"fitnet": "fitnet"}, tune=tune)
    root, cells = folder_of(experiment), tune_cells(experiment, hold_out=True)
    for cell in cells:
        if (top1 := tops[cell.factor][cell.seed]) is not None:
            evaluated(root, cell, top1)
    return experiment, root, cells


def test_a_factor_counts_when_all_its_seeds_do(clips_folder, caplog, monkeypatch):
    _, root, cells = tuned(clips_folder, {0.1: [90, None], 1.0: [0, 20], 10.0: [None, None]})
    assert scores(root, cells) == {("fitnet", "A"): {1.0: 10.0}}
    assert choose(root, cells) == {("fitnet", "A"): 1.0}
    monkeypatch.setattr(logging.getLogger("ccl"), "propagate", True)
    assert choose(root, cells[:2]) == {}  # a row without results keeps its weight
    assert "fitnet A: no factor has results of all seeds" in caplog.text


def test_of_equal_factors_the_nearest_to_one_is_best():
    assert best({("m", "A"): {0.01: 5.0, 0.1: 5.0, 10.0: 4.0}, ("n", "A"): {}}) == {("m", "A"): 0.1}


def test_runs_that_choose_and_fail_are_failures_too(clips_folder, monkeypatch):
    experiment, root, cells = tuned(clips_folder, {0.1: [None], 1.0: [20]})
    (final,) = final_cells(experiment, {})
    evaluated(root, final, 50)
    monkeypatch.setattr("ccl_cli.bench.run.map_items", lambda work, *_: dict.fromkeys(work.items, "no"))
    assert run_bench(experiment) == ([root / final.folder], [root / cells[0].folder])


def test_a_cell_that_another_process_finished_or_failed_is_settled(clips_folder, tmp_path):
    cells = final_cells(recipe(clips_folder, seeds=[0, 1]), {})
    broken, finished, *untouched = cells
    items = json.loads(json.dumps({cell.folder: cell.item(tmp_path) for cell in cells}))
    work = Work("bench", tmp_path, "", f"{of_cell.__name__}:done", items)
    assert Work.read(work.to_json()) == work
    assert work.unsettled() == list(items)
    evaluated(tmp_path, finished, 50)
    write_error(tmp_path / broken.folder, DataError("in the other process"), 4)
    assert work.unsettled() == [cell.folder for cell in untouched]
    assert not work.is_done(broken.folder)
    assert work.reason(broken.folder) == "in the other process"
    assert Recipe.model_validate(items[broken.folder]["recipe"]) == broken.recipe


def test_a_part_runs_its_cells_only_and_chooses_no_weight_before_the_others(clips_folder, monkeypatch):
    ran: list[list[str]] = []
    monkeypatch.setattr("ccl_cli.bench.run.map_items", lambda work, *_: ran.append(list(work.items)) or {})
    cells = [cell.folder for cell in final_cells(recipe(clips_folder, seeds=[0, 1]), {})]
    for number in (1, 2, 3):
        run_bench(recipe(clips_folder, seeds=[0, 1]), part=Part(number, 3))
    assert ran == [cells[0::3], cells[1::3], cells[2::3]]
    experiment, root, tuning = tuned(clips_folder, {0.1: [None], 1.0: [20]})
    with pytest.raises(UsageError, match="1 tuning runs are not finished"):
        run_bench(experiment, part=Part(2, 2))
    write_error(root / tuning[0].folder, CclError("diverged"), 1)  # as good as finished: others need not wait
    assert run_bench(experiment, part=Part(2, 2)).failed == []


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "slurm"])
def test_two_callers_share_the_cells_of_one_benchmark(clips_folder, tmp_path, slurm, monkeypatch, executor):
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("CCL_EXECUTOR_POLL", "0.5")
    content = values(clips_folder, seeds=[0, 1])
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(content))
    callers = [start(tmp_path / "bench.yaml", "--executor", executor) for _ in range(2)]
    outputs = [caller.communicate(timeout=300) for caller in callers]
    assert [caller.returncode for caller in callers] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]  # the same tables
    experiment = Recipe.model_validate(content)
    cells, root = final_cells(experiment, {}), folder_of(experiment)
    assert unfinished(root, cells) == []
    if executor == "slurm":
        assert len(list((slurm / "jobs").iterdir())) == 1
    else:  # each cell was trained by one of them
        assert sum(len(re.findall(r": top-1 .* \(\d+ s\)", said)) for _, said in outputs) == len(cells)


@pytest.mark.parametrize(("tops", "factor"), [({0.1: [30], 1.0: [20]}, 0.1), ({0.1: [30], 1.0: [None]}, 1.0)])
def test_the_list_shows_the_runs_that_the_chosen_weights_make(clips_folder, tmp_path, capsys, tops, factor):
    content = values(clips_folder, methods={"fitnet": "fitnet"}, tune={"grid": [0.1, 1.0], "seeds": [0]})
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(content))
    tuned(clips_folder, tops)
    assert main(["bench", str(tmp_path / "bench.yaml"), "--dry-run", "--tune"]) == 0
    (final,) = final_cells(Recipe.model_validate(content), {("fitnet", "A"): factor})
    out = capsys.readouterr().out
    assert final.folder in out
    assert ("weights are not tuned yet" in out) == (None in tops[1.0])
    assert "x10" not in out  # the recipe's own grid, not the default one


def start(recipe_path, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ccl_cli", "bench", str(recipe_path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
