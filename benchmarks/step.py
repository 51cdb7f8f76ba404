"""One training step: the published code's against ours, and distillation against plain cross-entropy.

    python benchmarks/step.py [--batch 16] [--size 112] [--rounds 3] [--steps 2] [--compile]
    python benchmarks/step.py --small       # batch 4 of 8 frames at 56 pixels: a quick try that says little
    python benchmarks/step.py --check       # only compare the gradients

The student has one block per stage (`r2plus1d_10`), the image teacher is a ResNet34 at the student's size
with random weights. Audio comes as vectors that were computed before, but where CNN14 is "live too": it hears
ten seconds per clip. The published step is written here from its description, as a reference only: three
backward passes through one graph, gradients on in the image teacher, contrast in both directions by way of
(B, B, D) differences. Ours are steps of the product's trainer. All take the losses of the published code
(`preset: official`), so the gradients are the same: --check compares them in float64.

Each variant runs in processes of its own, in turns: steps to warm up, then --steps timed ones. The published
step is the same from its second on; ours gets faster, and larger, over its first ten. Memory is the most that
the process held, libraries included.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from loss import published
from measuring import (
    arguments,
    figure,
    heading,
    in_turns,
    median,
    megabytes,
    peak_memory,
    seconds,
    table,
    unit,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ccl_cli import registry
from ccl_cli.config.recipe import Clip, Recipe
from ccl_cli.config.spec import parse_model
from ccl_cli.data.clips.batch import Batch, TeacherInput
from ccl_cli.data.clips.dataset import LoadedBatch
from ccl_cli.data.clips.transforms import normalize
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.teachers import Embedding, Teacher
from ccl_cli.training.build import Parts, load_method, load_teacher, make_student
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.distiller import Distiller
from ccl_cli.training.run.folder import RunFolder
from ccl_cli.training.trainer import Trainer
from ccl_plugins.precomputed import Precomputed, Table

CLASSES, WIDTH, AUDIO, IMAGE = 51, 512, "audio:precomputed", "image:resnet34"
TEMPERATURE = {AUDIO: 0.5, IMAGE: 0.1}
TRAINED = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}

OFFICIAL = "published step"
OURS: dict[str, dict[str, object]] = {
    "ours, fp32, contiguous": {"precision": "fp32", "channels_last": False},
    "ours, fp32": {"precision": "fp32"},
    "ours, fp32, image embedding cached": {"precision": "fp32", "cached": True},
    "ours, fp32, CNN14 live too": {"precision": "fp32", "hears": True},
    "cross-entropy alone, fp32": {"precision": "fp32", "method": "baseline"},
    "ours, bf16": {"precision": "bf16"},
    "ours, bf16, image embedding cached": {"precision": "bf16", "cached": True},
    "ours, bf16, CNN14 live too": {"precision": "bf16", "hears": True},
    "cross-entropy alone, bf16": {"precision": "bf16", "method": "baseline"},
    "ours, bf16, compiled": {"precision": "bf16", "compile": True},
}


# ---- the published step, as methods describe it


class Head(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.residual, self.classifier = nn.Linear(2 * width, width), nn.Linear(width, classes)

    def forward(self, teacher: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        pair = torch.cat([F.normalize(teacher, dim=1), F.normalize(video, dim=1)], dim=1)
        composed = teacher + self.residual(pair)
        return composed, self.classifier(composed)


def divergence(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    p, q = logits_p.softmax(dim=1), logits_q.softmax(dim=1)
    both = p * torch.log(p / q + 1e-10) + q * torch.log(q / p + 1e-10)
    return both.sum(dim=1).mean() / 2


def published_losses(
    feature: Tensor, logits: Tensor, heads: dict[str, Head], teachers: dict[str, Tensor], labels: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Each head's loss, and the student's."""
    head_losses, student_loss = [], F.cross_entropy(logits, labels)
    for name, teacher in teachers.items():

        def both_ways(first: Tensor, second: Tensor, heat: float = TEMPERATURE[name]) -> Tensor:
            return published(first, second, labels, heat) + published(second, first, labels, heat)

        composed, scores = heads[name](teacher, feature)
        near = both_ways(feature, composed) + divergence(logits, scores)
        head_losses.append(F.cross_entropy(scores, labels) + near + both_ways(composed, teacher))
        student_loss = student_loss + 0.5 * (both_ways(feature, teacher) + near)
    return head_losses, student_loss


def published_step(options: argparse.Namespace) -> Callable[[], None]:
    batch, clip = example(options, cached=False)
    student, image = make_student("r2plus1d_10", CLASSES), image_teacher(options.size).requires_grad_(True)
    heads = {name: Head(WIDTH, CLASSES) for name in (AUDIO, IMAGE)}
    of_heads = [torch.optim.SGD(head.parameters(), **TRAINED) for head in heads.values()]
    of_student = torch.optim.SGD(student.parameters(), **TRAINED)

    def step() -> None:
        output = student(normalize(batch.video, clip.mean, clip.std))
        teachers = {AUDIO: batch.inputs[AUDIO].value, IMAGE: image(batch.inputs[IMAGE].value)}
        losses, student_loss = published_losses(output.feature, output.logits, heads, teachers, batch.labels)
        for optimizer, loss in zip(of_heads, losses, strict=True):
            optimizer.zero_grad()
            loss.backward(retain_graph=True)
        of_student.zero_grad()  # what the heads' losses said to the student is thrown away
        student_loss.backward()
        for optimizer in (*of_heads, of_student):
            optimizer.step()

    return step


# ---- ours


def our_step(
    options: argparse.Namespace,
    *,
    method: str = "ccl",
    cached: bool = False,
    hears: bool = False,
    student: str = "r2plus1d_10",
    channels_last: bool = True,
    **train: Any,
) -> Callable[[], None]:
    batch, clip = example(options, cached, hears)
    audio = load_teacher(parse_model("audio:cnn14?weights=random")) if hears else precomputed("audio")
    image = precomputed("image") if cached else image_teacher(options.size)
    teachers: dict[str, Teacher] = {AUDIO: audio, IMAGE: image} if method == "ccl" else {}
    settings = {"preset": "official"} if method == "ccl" else {}
    return trainer_step(
        batch, clip, teachers, student, {method: settings}, channels_last=channels_last, **train
    )


def trainer_step(
    batch: Batch,
    clip: Clip,
    teachers: dict[str, Teacher],
    student: str,
    method: dict[str, dict[str, Any]],
    classes: int = CLASSES,
    precision: str = "fp32",
    **train: Any,
) -> Callable[[], None]:
    """One step of the product's trainer on this batch."""
    recipe = Recipe(
        student=student, method=method, clip=clip, train={"batch_size": len(batch.labels), **train}
    )
    network = make_student(student, classes, with_weights=False)
    of_run = setting(batch, network.feature_dim, tuple(teachers), classes)
    methods = {name: load_method(name, given, of_run) for name, given in recipe.method.items()}
    videos = tuple(Video(str(row), Path("none"), 0, "train") for row in range(len(batch.labels)))
    manifest = Manifest("none", ("none",), videos)
    parts = Parts(manifest, manifest.videos, manifest.videos[:0], teachers, network, methods)
    trainer = Trainer(recipe, parts, RunFolder(Path("none")), set_up(precision))
    return lambda: trainer.train_step([LoadedBatch(batch, {}, {})])


def setting(
    batch: Batch, width: int = WIDTH, names: tuple[str, ...] = (AUDIO, IMAGE), classes: int = CLASSES
) -> Setting:
    infos = tuple(TeacherInfo(name, name.partition(":")[0], WIDTH) for name in names)
    return Setting(width, classes, batch.labels, infos)


def methods_with_teachers() -> list[str]:
    """Names of every registered method that learns from teachers."""
    names = [plugin.name for plugin in registry.plugins(registry.METHODS)]
    return [name for name in names if registry.load(registry.find(registry.METHODS, name)).uses_teachers]


def image_teacher(size: int) -> Teacher:
    return load_teacher(parse_model(f"{IMAGE}?weights=random&input=student_clip&size={size}"))


def precomputed(modality: str) -> Teacher:
    table = Table(Path("vectors"), {"one": np.zeros(WIDTH, np.float32)})
    return Precomputed(modality, table).freeze()


def example(options: argparse.Namespace, cached: bool, hears: bool = False) -> tuple[Batch, Clip]:
    """A batch of noise; what it shows does not change how long it takes."""
    torch.manual_seed(0)
    rows, size, frames = options.batch, options.size, options.frames
    video = torch.randint(256, (rows, 3, frames, size, size), dtype=torch.uint8)
    everyone = torch.ones(rows, dtype=torch.bool)
    picture = torch.randn(rows, WIDTH).relu() if cached else video[:, :, 0].contiguous()
    sound = 0.1 * torch.randn(rows, 320_000) if hears else torch.randn(rows, WIDTH).relu()
    inputs = {
        AUDIO: TeacherInput(sound, everyone),
        IMAGE: TeacherInput(picture, everyone),
    }
    batch = Batch(video, torch.randint(CLASSES, (rows,)), torch.arange(rows), inputs, 0)
    return batch, Clip(frames=frames, size=size)


def check() -> None:
    """Both steps' gradients in float64, with a small student and both embeddings as vectors."""
    options = argparse.Namespace(batch=6, frames=4, size=16)
    batch, clip = example(options, cached=True)
    student = make_student("r2plus1d_tiny?width=64", CLASSES).double()
    method = load_method("ccl", {"preset": "official"}, setting(batch)).double()
    heads = {name: Head(WIDTH, CLASSES).double() for name in (AUDIO, IMAGE)}
    for head, own in zip(heads.values(), method.heads, strict=True):
        head.load_state_dict(own.state_dict())
    values = {name: given.value.double() for name, given in batch.inputs.items()}
    everyone = torch.ones(options.batch, dtype=torch.bool)
    distiller = Distiller(student, {"ccl": method}, clip)
    output = distiller(batch, {name: Embedding(value, everyone) for name, value in values.items()})
    ours = torch.autograd.grad(output.loss, [*student.parameters(), *method.parameters()])
    said = student(normalize(batch.video, clip.mean, clip.std, torch.float64))
    losses, loss = published_losses(said.feature, said.logits, heads, values, batch.labels)
    parameters = [parameter for head in heads.values() for parameter in head.parameters()]
    theirs = list(torch.autograd.grad(loss, list(student.parameters()), retain_graph=True))
    # The heads keep what both backward passes say, the student only what the second does.
    theirs += torch.autograd.grad(loss + sum(losses), parameters)
    apart = max(float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs, strict=True))
    print(f"Gradients of both steps, in float64: at most {apart:.1e} apart (relative, any tensor).\n")


# ---- measuring


def once(name: str, options: argparse.Namespace) -> dict[str, Any]:
    logging.getLogger("ccl").setLevel(logging.ERROR)
    step = published_step(options) if name == OFFICIAL else our_step(options, **OURS[name])
    for _ in range(1 if name == OFFICIAL else options.warm_up):
        step()
    return {"seconds": [seconds(step) for _ in range(options.steps)], "bytes": peak_memory()}


def flops_of_a_clip(student: str, frames: int, size: int) -> float:
    """Forward and backward, one clip; products and additions count as one each."""
    network = make_student(student, CLASSES, with_weights=False)
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.zeros(2, 3, frames, size, size)).logits.sum().backward()
    return counter.get_total_flops() / 2


def ceiling(dtype: torch.dtype) -> float:
    """The most FLOP per second of a plain product here, on the GPU if there is one."""
    gpu = torch.cuda.is_available()
    side, device = (8192, "cuda") if gpu else (2048, "cpu")
    first, second = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    taken = []
    for _ in range(10):
        begin = synchronized()
        first @ second
        taken.append(synchronized() - begin)
    return 2 * side**3 / min(taken)


def synchronized() -> float:
    """Seconds on the clock, once all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def report(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    taken = {
        name: median(each for turn in turns for each in turn["seconds"]) for name, turns in results.items()
    }
    size = {name: max(turn["bytes"] for turn in turns) for name, turns in results.items()}
    rows = []
    for name, value in taken.items():
        share = f"{size[name] / size[OFFICIAL]:.2f}"
        rows.append([name, figure(value), f"{taken[OFFICIAL] / value:.2f}", megabytes(size[name]), share])
    table(["step", unit(), "speed-up", "peak memory, MB", "of the published"], rows)
    cost = options.batch * flops_of_a_clip("r2plus1d_10", options.frames, options.size)
    rows = []
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        most = ceiling(dtype)
        reached = cost / most / taken[f"ours, {precision}, image embedding cached"]
        rows.append([precision, figure(most / 1e9), figure(cost / most), f"{100 * reached:.0f} %"])
    print(
        f"The student alone takes {cost / 1e9:,.0f} GFLOP, forward and backward. At the rate of a product\n"
        "of two large matrices that is the floor of a step; last column: how near ours comes, all cached.\n"
    )
    table(["precision", "product, GFLOP/s", "floor, seconds", "reached"], rows)
    rows = []
    for precision in ("fp32", "bf16"):
        alone = taken[f"cross-entropy alone, {precision}"]
        kinds = (", image embedding cached", "", ", CNN14 live too")
        rows.append([precision, *(f"{taken[f'ours, {precision}{kind}'] / alone:.3f}" for kind in kinds)])
    print("CCL with both teachers, in multiples of the step with cross-entropy alone:\n")
    table(["precision", "both cached", "image teacher live", "both live"], rows)


def main() -> None:
    numbers = {"batch": 16, "frames": 16, "size": 112, "rounds": 3, "steps": 2, "warm_up": 10}
    options = arguments(__doc__, **numbers, small=False, compile=False, check=False)
    if options.small:
        options.batch, options.frames, options.size = 4, 8, 56
    if options.check:
        check()
        return
    heading("Step", "torch", "timm", "accelerate")
    names = [OFFICIAL, *(name for name in OURS if options.compile or "compiled" not in name)]
    results = in_turns(once, names, options.rounds, options)
    print(
        f"Batch {options.batch} of {options.frames}x{options.size}x{options.size}, both teachers; ours in "
        f"channels_last_3d unless it says contiguous;\n{torch.get_num_threads()} threads; median of "
        f"{options.rounds} x {options.steps} steps in turns, ours after {options.warm_up} steps to warm up.\n"
    )
    check()
    report(results, options)


if __name__ == "__main__":
    main()
