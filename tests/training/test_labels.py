"""Training with few labels or none: the videos seen, the refusals, and the uses of the student afterwards."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccl_cli.config.load import check_recipe
from ccl_cli.data.sources import load_data
from ccl_cli.data.video_paths import list_videos
from ccl_cli.deploy.card import card
from ccl_cli.deploy.export import export_model
from ccl_cli.deploy.predict import embed, predict
from ccl_cli.errors import DataError, RecipeError, UsageError
from ccl_cli.evaluation.classifiers import LabelledEmbeddings, centre_and_normalise, predict_knn
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.evaluation.model import load_student
from ccl_cli.training import build as building
from ccl_cli.training.batches import training_clips
from ccl_cli.training.build import build
from ccl_cli.training.distiller import mean_cross_entropy
from ccl_cli.training.run.artefact import load_model
from ccl_cli.training.run.metrics_log import Meter, accuracy
from ccl_cli.training.train import train
from tests.training.runs import lines, recipe

LABEL_FREE = ["fitnet", "pkt", "cckd", "rkd", "crd", "cmc", "ifd", "queue_kl", "unic"]
TWO_STEPS = {"epochs": 1}


def unlabelled(clips_folder, **changes):
    data = f"folder:{clips_folder / 'set'}?labels=none"
    return recipe(clips_folder, **{"data": data, "method": "fitnet", "train": TWO_STEPS, **changes})


def test_methods_without_labels_train(clips_folder):
    changes = {"method": "+".join(LABEL_FREE), "ce_weight": 0, "optim": {"lr": 1e-4}}
    steps = lines(train(unlabelled(clips_folder, **changes)))
    assert len(steps) == 2
    for step in steps:
        assert math.isfinite(step["loss"])
        assert not {"ce", "accuracy", "labelled"} & step.keys()
        assert step["loss"] == pytest.approx(sum(v for k, v in step.items() if "/" in k), rel=1e-5)


@pytest.mark.parametrize("method", ["ccl", "baseline", "fitnet+kd"])
def test_methods_that_need_labels_say_so_before_anything_is_read(clips_folder, monkeypatch, method):
    monkeypatch.setattr(building, "load_teachers", None)
    with pytest.raises(RecipeError, match=r"cannot train without labels\. .*: .*crd.*unic"):
        build(unlabelled(clips_folder, method=method))
    with pytest.raises(RecipeError, match=method.removeprefix("fitnet+")):
        check_recipe(recipe(clips_folder, method=method, labels_per_class=0))


def test_methods_that_need_labels_train_on_the_videos_that_have_one(clips_folder):
    experiment = recipe(clips_folder, labels_per_class=2, max_unreadable=1)
    parts = build(experiment)
    assert (len(parts.videos), parts.labelled, parts.classes) == (4, 4, ("down", "right"))
    assert training_clips(experiment, parts, []).max_unreadable == 3  # of those, not of the whole split
    parts = build(recipe(clips_folder, labels_per_class=2, method="crd"))
    assert (len(parts.videos), parts.labelled, parts.classes) == (12, 4, ("down", "right"))
    assert sum(video.label is not None for video in parts.manifest.videos) == 18  # the list stays as it is


def test_cross_entropy_and_accuracy_are_those_of_labelled_rows(clips_folder):
    changes = {"method": "fitnet", "labels_per_class": 3, "train": {"epochs": 1, "batch_size": 12}}
    (step,) = lines(train(recipe(clips_folder, **changes)))
    assert step["labelled"] == 0.5
    meter = Meter()
    for labels in ([0, -1, 1], [-1, -1, -1]):
        meter.add(accuracy(torch.eye(3), torch.tensor(labels), partly=True), 0.5)
    assert meter.read() == pytest.approx({"accuracy": 0.5, "labelled": 1 / 3})
    logits = torch.randn(5, 3, requires_grad=True)
    labels = torch.tensor([2, -1, 0, -1, -1])
    expected = torch.nn.functional.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    torch.testing.assert_close(mean_cross_entropy(logits, labels), expected)
    nobody = mean_cross_entropy(logits, torch.full((5,), -1))
    (gradient,) = torch.autograd.grad(nobody, logits)
    assert nobody == 0
    assert not gradient.any()


def test_a_model_without_classes_has_features_and_can_be_fine_tuned(clips_folder, tmp_path):
    run = train(unlabelled(clips_folder))
    model, before = load_student(run), load_file(run / "model.safetensors")
    assert model.artefact.classes == ()
    assert not any(name.startswith("classifier") for name in before)
    videos = list_videos(clips_folder / "set" / "test")
    assert all(feature.vector.isfinite().all() for feature in embed(model, videos, workers=0))
    for use in (
        lambda: list(predict(model, videos)),
        lambda: evaluate(run, tasks=["recognition"]),
        lambda: export_model(run, tmp_path / "exported", formats=["torch"]),
    ):
        with pytest.raises(
            UsageError, match=r"without labels.*Fine-tune it with `ccl train --student r2plus"
        ):
            use()
    assert not (tmp_path / "exported").exists()
    assert "Trained without labels." in card(run)[1]
    assert "ccl predict" not in card(run)[1]
    with pytest.raises(DataError, match="have no labels"):
        evaluate(run)
    data = f"folder:{clips_folder / 'set'}"
    assert evaluate(run, data=data).keys() & {"recognition", "retrieval", "probe"} == {"retrieval"}
    probe = evaluate(run, data=data, tasks=["probe"])["probe"]
    x, y = {}, {}
    for split in ("train", "test"):
        videos = load_data(data).split(split)
        files = list_videos([video.path for video in videos])
        x[split] = np.stack([each.vector.numpy() for each in embed(model, files, workers=0)])
        y[split] = np.array([video.label for video in videos])
    x_train, x_test = centre_and_normalise(x["train"], x["test"])
    knn = predict_knn(LabelledEmbeddings(x_train, y["train"]), x_test, 10)
    assert (probe["knn"], probe["chance"]) == (pytest.approx(100 * (knn == y["test"]).mean()), 50)

    tuned = recipe(clips_folder, student=f"r2plus1d_tiny@{run}", method="baseline", train=TWO_STEPS)
    now = build(tuned).student.state_dict()
    assert now.keys() - before.keys() == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(now[name], value) for name, value in before.items())
    assert load_model(train(tuned) / "model.safetensors").classes == ("down", "right")
