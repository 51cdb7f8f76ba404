"""Scores on held-out videos while a run trains: their values and consequences; they change no step."""

from __future__ import annotations

import math

import pytest

from ccl_cli.config.load import to_yaml
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


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_score_is_that_of_ccl_eval_with_the_published_weights(clips_folder, split):
    changes = {"eval_every": 2, "eval_split": split, "eval_retrieval": True, "ema": 0.9}
    run = train(held_out(clips_folder, **changes, trackers="tensorboard"))
    assert [line["epoch"] for line in scores(run)] == [2, 3]  # and at the end
    result, last = evaluate(run, split=split), scores(run)[-1]
    assert last[f"{split}_top1"] == result["recognition"]["top1"]
    assert last[f"{split}_r1"] == result["retrieval"]["r1"]
    summary = RunFolder(run).summary["held_out"]
    assert summary["latest"] == {name: last[f"{split}_{name}"] for name in ("top1", "loss", "r1")}
    assert (summary["split"], summary["stopped_early"]) == (split, False)
    assert f"{split}_loss".encode() in b"".join(file.read_bytes() for file in run.rglob("events.out.*"))


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


def test_scores_need_videos(clips_folder, tmp_path):
    with pytest.raises(RecipeError, match="no val split to score on"):
        train(recipe(clips_folder, train={"eval_every": 1}), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_scores_that_decide_nothing_leave_the_recipe_the_same(clips_folder, tmp_path):
    shown, deciding = Recipe(train={"eval_every": 2}), Recipe(train={"eval_every": 2, "patience": 1})
    assert shown.hash() == Recipe().hash() != deciding.hash()
    run = train(held_out(clips_folder, eval_every=0, max_steps=2), output=tmp_path / "run")
    train(held_out(clips_folder, max_steps=4), resume=run)
    assert [line["step"] for line in scores(run)] == [4]
    with pytest.raises(RecipeError, match=r"differs.*train"):
        train(held_out(clips_folder, keep="best"), resume=run)
