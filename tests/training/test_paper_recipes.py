"""The paper's recipes, shrunk to tiny clips, against a loop in plain PyTorch: the same losses, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Recipe
from ccl_cli.data.clips.dataset import clip_loader
from ccl_cli.teachers import embed
from ccl_cli.training.batches import batch_sampler, training_clips
from ccl_cli.training.build import build
from ccl_cli.training.distiller import make_distiller
from ccl_cli.training.train import train
from tests.training.runs import lines

TINY = {
    "student": "r2plus1d_tiny",
    "clip.frames": 4,
    "clip.size": 16,
    "train.epochs": 4,
    "train.batch_size": 6,
    "train.workers": 0,
    "train.log_every": 1,
    "train.precision": "fp32",
    "cache.use": "off",
}


def plain_losses(recipe: Recipe) -> list[float]:
    """One loss a step; the recipe's milestones, SGD and nothing else."""
    parts, optim = build(recipe), recipe.optim
    distiller = make_distiller(recipe, parts, Accelerator(cpu=True), {})
    sampler = batch_sampler(recipe, parts)
    heads = [value for method in parts.methods.values() for value in method.parameters()]
    groups = [{"params": list(parts.student.parameters())}, *([{"params": heads}] if heads else [])]
    optimizer = torch.optim.SGD(groups, optim.lr, optim.momentum, weight_decay=optim.weight_decay)
    loader = clip_loader(training_clips(recipe, parts, parts.teachers), sampler, workers=0, pin_memory=False)
    epochs, losses = recipe.train.epochs, []
    for step, loaded in enumerate(loader):
        passed = sum(
            step // sampler.steps_per_epoch >= (m * epochs if m < 1 else m) for m in optim.milestones
        )
        optimizer.param_groups[0]["lr"] = optim.lr * optim.gamma**passed
        if optim.head_lr_decay and heads:
            optimizer.param_groups[1]["lr"] = optim.lr * optim.gamma**passed
        torch.manual_seed(int(np.random.SeedSequence([recipe.train.seed, step, 0]).generate_state(1)[0]))
        batch = loaded.batch
        embeddings = {name: embed(each, *batch.inputs[name]) for name, each in parts.teachers.items()}
        loss = distiller(batch, embeddings).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("ucf51", "ccl"),
        ("ucf51", "crd"),
        ("ucf51-official", "ccl"),
        *(pytest.param(name, "ccl", marks=pytest.mark.slow) for name in ("activitynet", "vggsound")),
    ],
)
def test_a_paper_recipe_is_sgd_with_milestones_and_nothing_else(clips_folder, tmp_path, name, method):
    teachers = [f"{kind}:precomputed@{clips_folder / kind}.npz" for kind in ("audio", "image")]
    settings = [f"{key}={value}" for key, value in TINY.items()]
    settings += [f"data=folder:{clips_folder / 'set'}", f"teachers={teachers}"]
    recipe = load_recipe(name, {"method": method}, settings)
    losses = plain_losses(recipe)
    assert len(losses) == 8
    run = train(recipe, output=tmp_path / "run")
    assert [line["loss"] for line in lines(run)] == losses
