from __future__ import annotations

import re

import pytest
import torch

from ccl_cli.config.recipe import ASIDE, Recipe
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import RecipeError, UsageError
from ccl_cli.training.run import checkpoint
from ccl_cli.training.run import open_run as opening
from ccl_cli.training.train import train
from tests.training.runs import recipe


@pytest.fixture
def open_run(tmp_path):
    manifest = Manifest("x", ("a", "b"), (Video("a/1", tmp_path / "1.mp4", 0, "train"),))

    def open_run(recipe=None, resume=None, output=None):
        run, _ = opening.open_run(recipe or Recipe(), manifest, resume, output)
        opening.release(run)
        return run

    return open_run


def test_resume_auto_passes_over_recipes_that_cannot_be_read(open_run):
    run = open_run()
    for number, text in enumerate(["of: {another: version}\n", "a: [", "- list\n"]):
        folder = run.path.with_name(f"x{number}")
        folder.mkdir()
        (folder / "recipe.yaml").write_text(text)
    assert open_run(resume="auto") == run


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other", "description": "other", "methods": {"kd": {"ce_weight": 0.1}}},
        {"bench": {"setups": {"A": "audio:cnn14"}, "methods": {"x": "ccl"}}},
        {"eval": {"batch_size": 7, "stride": 9}},
        {"train": {"workers": 1, "log_every": 1, "max_steps": 3, "recompute": True}},
    ],
)
def test_resume_goes_on_with_what_decides_no_step_changed(open_run, changes):
    run = open_run()
    assert [open_run(Recipe.model_validate(changes), each) for each in ("auto", run.path)] == [run, run]
    other = Recipe.model_validate({"optim": {"lr": 0.5}})
    with pytest.raises(RecipeError, match=r"differs .* in: optim") as caught:
        open_run(other, run.path)
    assert set(ASIDE) < set(re.findall(r"[\w.]+", caught.value.hint))
    assert open_run(other, "auto") != run


def test_a_folder_with_what_a_kill_leaves_of_a_write_can_be_used(open_run, tmp_path):
    (tmp_path / "run").mkdir()
    for name in (".cell.json.123.tmp", ".recipe.yaml.7.tmp", ".lock", "cell.json", "log.txt"):
        (tmp_path / "run" / name).write_text("")
    assert open_run(output=tmp_path / "run").path == tmp_path / "run"
    assert not list((tmp_path / "run").glob(".*.tmp"))
    for name in ("thesis.tmp", ".mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("mine")
        with pytest.raises(UsageError, match="not empty"):
            open_run(output=tmp_path / name)
        assert [path.name for path in (tmp_path / name).iterdir()] == [name]


def test_a_checkpoint_of_another_version_is_refused(clips_folder, tmp_path):
    run = train(recipe(clips_folder, method="fitnet", train={"max_steps": 2}), output=tmp_path / "run")
    path = checkpoint.newest_state(run / "state")
    torch.save(torch.load(path, weights_only=True) | {"format": "ccl-state-1"}, path)
    with pytest.raises(UsageError, match="Another version of ccl wrote the checkpoints"):
        train(recipe(clips_folder, method="fitnet"), resume=run)
