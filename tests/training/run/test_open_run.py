from __future__ import annotations

import pytest

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import UsageError
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
