"""How hard each method pulls at the student, against its cross-entropy.

    python benchmarks/gradient_share.py EMBEDDINGS.npz [--batch 16 64] [--draws 5]

EMBEDDINGS holds real embeddings of one audio teacher for UCF videos: ``names`` (``Class/v_Class_g01_c01``)
and ``embedding`` [N, D]. Videos of groups 1 to 7 are UCF's first test list and are left out.

The share is the norm of the gradient, at the student's feature, of the sum of a method's terms at their
default weights, over the norm of that of the cross-entropy. Two students stand for a training's two ends:

* untrained: r2plus1d_10 with fresh weights in training mode on smooth noise; its rows are nearly parallel;
* spread: ReLU features around one random mean per class, as long as a trained network's.

Each draw is another batch with other weights everywhere, in the method's own layers too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from measuring import arguments, median, table
from step import methods_with_teachers
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.methods.components.losses import cross_entropy
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.training.build import load_method, make_student

TEACHER = "audio:cnn14"
STUDENT = "r2plus1d_10"
CLIP = (3, 16, 112, 112)

HALF = {"composition": False, "nce_scale": 0.5}

# Besides every registered method as it is: method and options.
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "ccl, half its contrast, 0.5": ("ccl", {**HALF, "temperature": {"audio": 0.5}}),
    "ccl, half its contrast, 0.1": ("ccl", {**HALF, "temperature": {"audio": 0.1}}),
    "ccl, official": ("ccl", dict(preset="official")),
    "cckd, neighbour": ("cckd", dict(variant="neighbour")),
    "pkt, batchmean": ("pkt", dict(reduction="batchmean")),
    "crd, 4096 negatives": ("crd", dict(num_negatives=4096)),
}


class Videos(NamedTuple):
    """[N, D] embeddings and [N] labels of the training videos."""

    embedding: Tensor
    labels: Tensor


class Draw(NamedTuple):
    """One batch as both students see it."""

    feature: Tensor
    classifier: nn.Linear
    rows: Tensor


def training_videos(path: Path) -> Videos:
    with np.load(path) as file:
        names, embedding = [str(name) for name in file["names"]], torch.from_numpy(file["embedding"]).float()
    classes = sorted({name.split("/")[0] for name in names})
    kept = [row for row, name in enumerate(names) if int(name.split("_g")[1][:2]) > 7]
    labels = torch.tensor([classes.index(names[row].split("/")[0]) for row in kept])
    return Videos(embedding[kept], labels)


def untrained(videos: Videos, rows: Tensor) -> Draw:
    student = make_student(STUDENT, int(videos.labels.max()) + 1).train()
    coarse = torch.randn(len(rows), 3, 4, 7, 7)
    clips = F.interpolate(coarse, CLIP[1:], mode="trilinear", align_corners=False)
    with torch.no_grad():
        feature = student(clips).feature
    return Draw(feature, student.classifier, rows)


def spread(videos: Videos, rows: Tensor) -> Draw:
    width, classes = 512, int(videos.labels.max()) + 1
    means = torch.randn(classes, width)[videos.labels[rows]]
    return Draw((means + torch.randn_like(means)).relu(), nn.Linear(width, classes), rows)


def share_of(draw: Draw, videos: Videos, name: str, options: dict[str, object]) -> float:
    """Norm of the terms' gradient over the cross-entropy's."""
    labels = videos.labels[draw.rows]
    teacher = TeacherInfo(TEACHER, "audio", videos.embedding.shape[1])
    classes = draw.classifier.out_features
    setting = Setting(draw.feature.shape[1], classes, videos.labels, (teacher,), epochs=300)
    method = load_method(name, options, setting).train()
    feature = draw.feature.clone().requires_grad_()
    student = StudentOutput(feature, draw.classifier(feature))
    present = torch.ones(len(labels), dtype=torch.bool)
    embeddings = {TEACHER: Embedding(videos.embedding[draw.rows], present)}
    terms = method(student, embeddings, Batch(torch.empty(0), labels, draw.rows, {}, 0))
    total = torch.stack(list(terms.values())).sum()
    ours, theirs = (
        torch.autograd.grad(loss, feature, retain_graph=True)[0].norm()
        for loss in (total, cross_entropy(student.logits, labels).mean())
    )
    return float(ours / theirs)


def draws(videos: Videos, options: argparse.Namespace) -> Iterator[tuple[str, Draw]]:
    for batch in options.batch:
        for seed in range(options.draws):
            for kind in (untrained, spread):
                torch.manual_seed(seed)
                rows = torch.randperm(len(videos.labels))[:batch]
                yield f"{kind.__name__} B={batch}", kind(videos, rows)


def figures(values: Sequence[float]) -> str:
    return f"{median(values):.2g} ({min(values):.2g} to {max(values):.2g})"


def main() -> None:
    options = arguments(__doc__, ("embeddings", {"type": Path}), batch=[16, 64], draws=5)
    videos = training_videos(options.embeddings)
    cases = {name: (name, {}) for name in methods_with_teachers()} | VARIANTS
    shares: dict[str, dict[str, list[float]]] = {name: {} for name in cases}
    for column, draw in draws(videos, options):
        for name, (method, settings) in cases.items():
            shares[name].setdefault(column, []).append(share_of(draw, videos, method, settings))
    rows = [[name, *map(figures, by_column.values())] for name, by_column in shares.items()]
    table(["method", *next(iter(shares.values()))], rows)


if __name__ == "__main__":
    main()
