"""Probes of teachers, pairs of teachers and students on the classes of a data set."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError, UsageError
from ccl_cli.evaluation.classifiers import (
    LabelledEmbeddings,
    centre_and_normalise,
    probe_knn,
    probe_linear,
)
from ccl_cli.evaluation.predictor import SplitPredictions
from ccl_cli.evaluation.teacher_embeddings import TeacherEmbeddings, embed_videos
from ccl_cli.evaluation.verdicts import NEIGHBOURS, RULE
from ccl_cli.teachers import Teacher
from ccl_cli.training.build import load_teachers
from ccl_cli.utils.distributed import is_main

HELD_OUT = "held out"
_TEST_SHARE, _CHOOSE_SHARE = 0.25, 0.2  # fractions of the training videos
_ROUNDS = 3  # rounds of choosing the penalty, on different videos
_log = logging.getLogger("ccl")


@dataclass(frozen=True)
class ProbeSplits:
    """Training and test videos of a probe.

    Attributes:
        classes: Class names.
        split: Split of ``test``, or "held out" for held-out training videos.
        validation: [R, N] bool, held-out training videos of R rounds; groups are not split.
    """

    classes: tuple[str, ...]
    split: str
    train: Sequence[Video]
    test: Sequence[Video]
    validation: NDArray[np.bool_]

    @property
    def videos(self) -> Sequence[Video]:
        """Training videos, then test videos."""
        return (*self.train, *self.test)


def probe_teachers(
    data: str | None,
    specs: Sequence[str],
    *,
    split: str | None = None,
    k: int = NEIGHBOURS,
    batch_size: int | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Probe each teacher and each pair of teachers.

    Args:
        data: Data set, as after ``--data``.
        specs: Teachers, as after ``--teacher``.
        split: Split to classify. Default: test, else val, else a quarter of the training videos.
        k: Number of neighbours.
        batch_size: Videos per forward pass. Default: that of recipes.
        workers: Decoding processes. Default: that of recipes.

    Returns:
        Metrics in percent, counts and verdicts; empty on all processes but the first.

    Raises:
        DataError: the data set has one class or no test videos, or a teacher has no embeddings.
    """
    if not specs:
        raise UsageError("No teacher was named.", "Add --teacher, for example --teacher audio:cnn14.")
    manifest = load_data(data)
    splits = split_videos(manifest, split)
    teachers = load_teachers(specs, manifest.classes)
    check_blind(teachers)
    embedded = embed_videos(teachers, splits.videos, batch_size=batch_size, workers=workers)
    if not is_main():
        return {}
    for name, each in embedded.items():
        check_present(name, each, splits)
    groups = [*((name,) for name in teachers), *combinations(teachers, 2)]
    return {
        "data": {
            "name": manifest.name,
            "manifest": manifest.hash,
            "classes": len(manifest.classes),
            "split": splits.split,
            "train": len(splits.train),
            "test": len(splits.test),
        },
        "k": k,
        "rule": RULE,
        "teachers": {name: _about(name, each, embedded[name], splits) for name, each in teachers.items()},
        "probes": [probe(group, splits, embedded, k) for group in groups],
    }


def probe_student(
    manifest: Manifest, split: str, train: SplitPredictions, test: SplitPredictions
) -> dict[str, Any]:
    """Fit nearest neighbours and a logistic regression to features of the training split, and evaluate them.

    Returns:
        ``knn``, ``linear`` and ``chance`` in percent, where videos without a feature count as errors; ``k``;
        the chosen ``penalty``; and ``per_class`` over the videos with a feature.
    """
    features = torch.cat([train.features, test.features])
    present = features.isfinite().all(dim=1)
    embedded = TeacherEmbeddings(torch.where(present[:, None], features, 0.0), present)
    figures = probe(["student"], split_videos(manifest, split), {"student": embedded})
    read = figures["test"]["present"] / figures["test"]["videos"]
    shares = {name: figures[name] * read for name in ("knn", "linear", "chance") if name in figures}
    rest = {name: figures[name] for name in ("penalty", "per_class") if name in figures}
    return shares | {"k": NEIGHBOURS} | rest


def split_videos(manifest: Manifest, split: str | None) -> ProbeSplits:
    """Choose the training and test videos.

    Raises:
        DataError: the data set has no labels, one class or no test videos.
    """
    manifest = manifest.labelled()
    if len(manifest.classes) < 2:
        raise DataError(
            f"The data set '{manifest.name}' has only one class.", "Use a data set with at least two classes."
        )
    split = split or next((name for name in ("test", "val") if manifest.split(name)), HELD_OUT)
    train, test = manifest.split("train"), manifest.split(split)
    if split == HELD_OUT:
        divided = replace(manifest, videos=train).hold_out(_TEST_SHARE)
        train, test = divided.split("train"), divided.split("val")
        _log.info("'%s' has no test split: %d training videos are held out.", manifest.name, len(test))
    if not test:
        what = "is too small to hold out test videos" if split == HELD_OUT else f"has no {split} split"
        raise DataError(
            f"The data set '{manifest.name}' {what}.",
            "Choose another data set with --data, or another --split.",
        )
    training = replace(manifest, videos=train)
    validation = np.array([_held_out(training, seed) for seed in range(_ROUNDS)])
    return ProbeSplits(manifest.classes, split, train, test, validation)


def _held_out(training: Manifest, seed: int) -> list[bool]:
    chosen = {video.id for video in training.hold_out(_CHOOSE_SHARE, seed).split("val")}
    return [video.id in chosen for video in training.videos]


def check_blind(teachers: Mapping[str, Teacher]) -> None:
    """Raise a DataError if a teacher uses the label that the probe predicts."""
    for name, teacher in teachers.items():
        if teacher.sees_label:
            raise DataError(
                f"{name} uses the class of each video as input, so a probe of it is meaningless.",
                "Probe the other teachers.",
            )


def check_present(name: str, embedded: TeacherEmbeddings, splits: ProbeSplits) -> None:
    """Raise a DataError if the teacher has no embedding in one of the splits."""
    border = len(splits.train)
    for what, rows in (("training", range(border)), (splits.split, range(border, len(embedded.present)))):
        if not embedded.present[rows.start : rows.stop].any():
            reason = next(
                (f": {embedded.unreadable[row]}" for row in rows if row in embedded.unreadable), "."
            )
            raise DataError(f"{name} has no embedding for any of the {len(rows)} {what} videos{reason}")


def _about(name: str, teacher: Teacher, embedded: TeacherEmbeddings, splits: ProbeSplits) -> dict[str, Any]:
    """Describe a teacher, and warn if some videos are unreadable."""
    videos = splits.videos
    unreadable = {videos[row].id: reason for row, reason in sorted(embedded.unreadable.items())[:50]}
    for first, reason in list(unreadable.items())[:1]:
        count = f"{len(embedded.unreadable)} of {len(videos)} videos are skipped because they are unreadable"
        _log.warning("%s: %s, for example '%s': %s", name, count, first, reason)
    return {
        "variant": teacher.variant,
        "dim": teacher.dim,
        "random_weights": teacher.random_weights,
        "videos": dict(Counter(embedded.states.values()).most_common()),
        "unreadable": unreadable,
    }


def probe(
    group: Sequence[str],
    splits: ProbeSplits,
    embedded: Mapping[str, TeacherEmbeddings],
    k: int = NEIGHBOURS,
    *,
    with_linear: bool = True,
) -> dict[str, Any]:
    """Probe one teacher, or several teachers together on the videos that all of them can embed.

    The logistic regression takes longest.

    Returns:
        Counts and, if any video remains, metrics in percent and verdicts.
    """
    border = len(splits.train)
    present = torch.stack([embedded[name].present for name in group]).all(dim=0).numpy()
    in_train, in_test = present[:border], present[border:]
    entry: dict[str, Any] = {
        "teachers": list(group),
        "train": {"present": int(in_train.sum()), "videos": border},
        "test": {"present": int(in_test.sum()), "videos": len(splits.test)},
    }
    if not in_train.any() or not in_test.any():
        _log.warning("Cannot probe %s together: no video has both modalities.", " and ".join(group))
        return entry
    # Embeddings of several teachers are normalised and concatenated.
    values = [embedded[name].value.numpy() for name in group]
    pairs = [centre_and_normalise(each[:border][in_train], each[border:][in_test]) for each in values]
    labels = np.array([video.target for video in splits.videos])
    train = LabelledEmbeddings(np.concatenate([each for each, _ in pairs], axis=1), labels[:border][in_train])
    test = LabelledEmbeddings(np.concatenate([each for _, each in pairs], axis=1), labels[border:][in_test])
    entry |= probe_knn(train, test, splits.classes, k)
    if with_linear:
        entry |= probe_linear(train, test, splits.validation[:, in_train])
    return entry
