from __future__ import annotations

import re

import pytest

from ccl_cli.config.recipe import ASIDE, Recipe
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import RecipeError, UsageError
from ccl_cli.training.run.open_run import open_run, release


@pytest.fixture
def manifest(tmp_path):
    return Manifest("x", ("a", "b"), (Video("a/1", tmp_path / "1.mp4", 0, "train"),))


def test_resume_auto_passes_over_recipes_that_cannot_be_read(manifest):
    run, _ = open_run(Recipe(), manifest, None, None)
    release(run)
    for number, text in enumerate(["of: {another: version}\n", "a: [", "- list\n"]):
        folder = run.path.with_name(f"x{number}")
        folder.mkdir()
        (folder / "recipe.yaml").write_text(text)
    found, _ = open_run(Recipe(), manifest, "auto", None)
    release(found)
    assert found == run


CHANGES = {
    "name": "other",
    "description": "other",
    "methods": {"kd": {"ce_weight": 0.1}},
    "bench": {"setups": {"A": "audio:cnn14"}, "methods": {"x": "ccl"}},
    "eval": {"batch_size": 7, "stride": 9},
    "train": {"workers": 1, "log_every": 1, "max_steps": 3, "recompute": True},
}


@pytest.mark.parametrize("key", CHANGES)
def test_resume_goes_on_with_what_decides_no_step_changed(manifest, key):
    run, _ = open_run(Recipe(), manifest, None, None)
    release(run)
    changed = Recipe.model_validate({key: CHANGES[key]})
    for resume in ("auto", run.path):
        found, _ = open_run(changed, manifest, resume, None)
        release(found)
        assert found == run
    other = Recipe.model_validate({"optim": {"lr": 0.5}})
    with pytest.raises(RecipeError, match=r"differs .* in: optim") as caught:
        open_run(other, manifest, run.path, None)
    assert set(ASIDE) < set(re.findall(r"[\w.]+", caught.value.hint))
    new, _ = open_run(other, manifest, "auto", None)
    release(new)
    assert new != run


def test_a_folder_with_what_a_kill_leaves_of_a_write_can_be_used(manifest, tmp_path):
    for name in (".cell.json.123.tmp", ".recipe.yaml.7.tmp", ".lock", "cell.json", "log.txt"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text("")
    run, _ = open_run(Recipe(), manifest, None, tmp_path / "run")
    release(run)
    assert run.path == tmp_path / "run"
    assert not list(run.path.glob(".*.tmp"))
    for name in ("thesis.tmp", ".mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("mine")
        with pytest.raises(UsageError, match="not empty"):
            open_run(Recipe(), manifest, None, tmp_path / name)
        assert [path.name for path in (tmp_path / name).iterdir()] == [name]
