"""Runs whose student is not trained, but tells videos apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ccl_cli.config.load import load_recipe, to_yaml
from ccl_cli.config.recipe import Recipe
from ccl_cli.data.sources import load_data
from ccl_cli.evaluation.predictor import predict_split
from ccl_cli.training.build import make_student
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.run.artefact import Artefact, save_model
from ccl_cli.training.run.folder import MANIFEST, MODEL, RECIPE, RunFolder
from ccl_cli.utils.files import write_text

CLIP = {"frames": 4, "size": 16, "short_side": 16}


def write_run(folder: Path, data: Path, seed: int = 0, **train: Any) -> Path:
    """A run folder as `ccl train` leaves it: about half of the videos fall to the first of two classes."""
    manifest = load_data(f"folder:{data}")
    recipe = Recipe(
        data=f"folder:{data}",
        student="r2plus1d_tiny",
        clip=CLIP,
        train={"workers": 0, **train},
        eval={"batch_size": 4, "stride": 4},
    )
    torch.manual_seed(seed)
    student = make_student(recipe.student, len(manifest.classes))
    artefact = Artefact(student.eval(), recipe, manifest.classes, {})
    predictions = predict_split(artefact, manifest.videos, set_up("fp32"), batch_size=4, workers=0)
    with torch.no_grad():
        direction = 100 * torch.randn(predictions.features.shape[1])
        middle = (predictions.features @ direction).median()
        student.classifier.weight.copy_(torch.stack([direction, -direction]))
        student.classifier.bias.copy_(torch.stack([-middle, middle]))
    run = RunFolder(folder)
    write_text(folder / RECIPE, to_yaml(recipe))
    manifest.save(run.path / MANIFEST)
    save_model(run.model, student, recipe, manifest.classes, manifest=manifest.hash, step=0)
    assert (folder / MODEL).is_file()
    return folder


def publish(folder: Path, classes: Sequence[str] = ("climb", "fall")) -> Path:
    """Put an untrained student into a run folder that has a recipe but no model."""
    recipe = load_recipe(str(folder / RECIPE))
    student = make_student(recipe.student, len(classes), with_weights=False)
    save_model(folder / MODEL, student, recipe, tuple(classes), step=1)
    return folder / MODEL
