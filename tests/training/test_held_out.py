"""The score on held-out videos while a run trains: what it says, what it decides, and that it disturbs nothing."""

from __future__ import annotations

import json
import math

import pytest

from ccl_cli.config.load import load_recipe, to_yaml
from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import RecipeError
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.evaluation.model import load_student
from ccl_cli.evaluation.while_training import score, train
from ccl_cli.training import train as training
from ccl_cli.training.build import build
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.run.artefact import load_model
from ccl_cli.training.run.folder import RunFolder
from tests.reliability.processes import in_two_processes
from tests.training.runs import lines, recipe

MODEL = "model.safetensors"


def held_out(clips_folder, **more) -> Recipe:
    """Two of six training videos of each class set aside; three epochs of two steps."""
    return recipe(clips_folder, holdout=0.25, train={"batch_size": 4, "eval_every": 1, **more})


def scores(run) -> list[dict]:
    return [line for line in lines(run) if "loss" not in line]


def test_six_steps_equal_four_a_kill_and_the_rest_and_those_without_a_score(clips_folder, tmp_path):
    best = {"keep": "best", "keep_by": "loss", "ema": 0.9}
    plain = train(held_out(clips_folder, eval_every=0, ema=0.9), output=tmp_path / "plain")
    once = train(held_out(clips_folder, **best), output=tmp_path / "once")
    parts = train(held_out(clips_folder, **best, max_steps=4), output=tmp_path / "parts")
    (parts / "state" / "step-000000004.pt").unlink()  # as if killed after the score and before its checkpoint
    train(held_out(clips_folder, **best), resume=parts)
    assert lines(parts) == lines(once)
    assert [line for line in lines(once) if "loss" in line] == lines(plain)
    assert [line["step"] for line in scores(once)] == [2, 4, 6]
    assert (parts / MODEL).read_bytes() == (once / MODEL).read_bytes()
    header = load_model(once / MODEL).header
    assert header["step"] == min(scores(once), key=lambda line: line["val_loss"])["step"]
    assert (header["selection"], header["weights"]) == ("best loss on val", "ema")
    assert evaluate(once, split="val", tasks=["recognition"])["selection"] == "best loss on val"


def test_a_score_is_what_ccl_eval_says_of_the_published_weights(clips_folder):
    run = train(held_out(clips_folder, eval_every=2, eval_retrieval=True, ema=0.9, trackers="tensorboard"))
    assert [line["epoch"] for line in scores(run)] == [2, 3]  # and at the end
    result, last = evaluate(run, split="val"), scores(run)[-1]
    assert last["val_top1"] == result["recognition"]["top1"]
    assert last["val_r1"] == result["retrieval"]["r1"]
    summary = RunFolder(run).summary["held_out"]
    assert summary["latest"] == {name.removeprefix("val_"): last[name] for name in last if "val_" in name}
    assert (summary["split"], summary["stopped_early"]) == ("val", False)
    assert b"val_loss" in b"".join(file.read_bytes() for file in run.rglob("events.out.tfevents.*"))


def test_patience_ends_a_run_and_the_best_weights_are_published(clips_folder, tmp_path):
    losses = iter([3.0, math.nan, 2.0, 2.5, 2.0])
    wanted = held_out(clips_folder, epochs=9, keep="best", keep_by="loss", patience=2)

    def score(*given):
        return {"top1": 50.0, "loss": next(losses)}

    run = RunFolder(training.train(wanted, output=tmp_path / "run", score=score))
    assert lines(run.path)[-1]["step"] == 10
    assert run.finished
    assert run.summary["held_out"]["stopped_early"] is True
    assert run.summary["model"] == {"step": 6, "selection": "best loss on val", "weights": "raw"}
    before = run.model.read_bytes()
    run.update_summary({"finished": False})  # as if killed before it was published
    training.train(wanted, resume=run.path, score=score)
    assert lines(run.path)[-1]["step"] == 10
    assert run.model.read_bytes() == before


@pytest.mark.slow
def test_two_processes_score_as_one_does(clips_folder, tmp_path, monkeypatch):
    """Each with batch statistics of its own: those of the first one are scored, as they are published."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    wanted = held_out(clips_folder, epochs=1, eval_retrieval=True, sync_batchnorm=False, ema=0.5)
    (tmp_path / "recipe.yaml").write_text(to_yaml(wanted))
    run = tmp_path / "run"
    in_two_processes(tmp_path, "train", "--recipe", "recipe.yaml", "--output", run)
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    model, (line,) = load_student(run), scores(run)
    alone = score(wanted, build(wanted), model.artefact.student, set_up("fp32"))
    assert {name.removeprefix("val_"): line[name] for name in line if "val_" in name} == pytest.approx(alone)


def test_the_test_videos_are_scored_where_they_are_typed_and_named(clips_folder):
    typed = {"epochs": 1, "eval_every": 1, "eval_split": "test", "keep": "best"}
    run = train(recipe(clips_folder, train=typed))
    assert {"test_top1", "test_loss"} <= scores(run)[0].keys()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["model"]["selection"], summary["held_out"]["split"]) == ("best top-1 on test", "test")


def test_what_cannot_be_scored_is_refused(clips_folder, tmp_path):
    with pytest.raises(RecipeError, match="no val split to score on") as raised:
        train(recipe(clips_folder, train={"eval_every": 1}), output=tmp_path / "run")
    assert "--set holdout=0.1" in raised.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("keep=best", "keep: best needs scores on held-out videos: set eval_every"),
        ("patience=3", "patience needs scores"),
        ("keep_by=r1", "keep_by: r1 needs eval_retrieval"),
    ],
)
def test_what_needs_a_score_says_so(typed, sentence):
    with pytest.raises(RecipeError, match=sentence):
        load_recipe(overrides=[f"train.{typed}"])


def test_scores_that_decide_nothing_leave_the_recipe_the_same(clips_folder, tmp_path):
    shown, deciding = Recipe(train={"eval_every": 2}), Recipe(train={"eval_every": 2, "patience": 1})
    assert shown.hash() == Recipe().hash() != deciding.hash()
    run = train(held_out(clips_folder, eval_every=0, max_steps=2), output=tmp_path / "run")
    train(held_out(clips_folder, max_steps=4), resume=run)
    assert [line["step"] for line in scores(run)] == [4]
    with pytest.raises(RecipeError, match=r"differs.*train"):
        train(held_out(clips_folder, keep="best"), resume=run)
