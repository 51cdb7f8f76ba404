"""Probes of teachers and pairs of teachers on the classes of a data set, before any training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccl_cli.config.recipe import Clip, Recipe
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError, UsageError
from ccl_cli.evaluation.classifiers import (
    KnnProbe,
    LabelledEmbeddings,
    center_and_normalize,
    probe_knn,
    probe_linear,
)
from ccl_cli.evaluation.teacher_embeddings import TeacherEmbeddings, embed_videos
from ccl_cli.evaluation.verdicts import NEIGHBOURS, RULE, VERDICTS
from ccl_cli.teachers import Teacher
from ccl_cli.training.build import check_coverage, load_teachers
from ccl_cli.training.compute.device import set_up
from ccl_cli.utils.distributed import is_main

HELD_OUT = "held out"
_TEST_SHARE, _CHOOSE_SHARE = 0.25, 0.2  # fractions of the training videos
_ROUNDS = 3  # rounds of choosing the penalty, on different videos
_log = logging.getLogger("ccl")


@dataclass(frozen=True)
class ProbeSplits:
    """Training and test videos of a probe.

    Attributes:
        split: Split of ``test``, or "held out" for held-out training videos.
        validation: [R, N] bool, held-out training videos of R rounds; groups are not split.
    """

    split: str
    train: Sequence[Video]
    test: Sequence[Video]
    validation: NDArray[np.bool_]


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
    embedded = embed_splits(teachers, splits, batch_size=batch_size, workers=workers)
    return _result(manifest, splits, teachers, embedded, k) if is_main() else {}


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
    train = manifest.split("train")
    if split is None:
        split = next((name for name in ("test", "val") if manifest.split(name)), HELD_OUT)
    if split == HELD_OUT:
        divided = replace(manifest, videos=train).hold_out(_TEST_SHARE)
        train, test = divided.split("train"), divided.split("val")
        _log.info("'%s' has no test split: %d training videos are held out.", manifest.name, len(test))
    else:
        test = manifest.split(split)
    if not test:
        what = "is too small to hold out test videos" if split == HELD_OUT else f"has no {split} split"
        raise DataError(
            f"The data set '{manifest.name}' {what}.",
            "Choose another data set with --data, or another --split.",
        )
    validation = [_held_out(replace(manifest, videos=train), seed) for seed in range(_ROUNDS)]
    return ProbeSplits(split, train, test, np.array(validation))


def _held_out(training: Manifest, seed: int) -> list[bool]:
    chosen = {video.id for video in training.hold_out(_CHOOSE_SHARE, seed).split("val")}
    return [video.id in chosen for video in training.videos]


def _result(
    manifest: Manifest,
    splits: ProbeSplits,
    teachers: Mapping[str, Teacher],
    embedded: Mapping[str, TeacherEmbeddings],
    k: int,
) -> dict[str, Any]:
    videos = (*splits.train, *splits.test)
    for name, each in embedded.items():
        check_present(name, each, splits)
        _warn_unreadable(name, each, videos)
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
        "teachers": {name: _teacher(each, embedded[name], videos) for name, each in teachers.items()},
        "probes": [probe(group, manifest, splits, embedded, k) for group in groups],
    }


def embed_splits(
    teachers: Mapping[str, Teacher],
    splits: ProbeSplits,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
) -> dict[str, TeacherEmbeddings]:
    """Embed the training and test videos with each teacher.

    Args:
        teachers: Teachers by name.
        splits: Training and test videos.
        batch_size: Videos per forward pass. Default: that of recipes.
        workers: Decoding processes. Default: that of recipes.

    Raises:
        DataError: a teacher cannot have embeddings of these videos.
    """
    videos, defaults = (*splits.train, *splits.test), Recipe()
    check_coverage(teachers, [video.id for video in videos])
    return embed_videos(
        teachers,
        videos,
        set_up("fp32"),
        clip=Clip(),
        batch_size=batch_size or defaults.eval.batch_size,
        workers=defaults.train.workers if workers is None else workers,
    )


def check_blind(teachers: Mapping[str, Teacher]) -> None:
    """Check that no teacher uses the label that the probe predicts.

    Raises:
        DataError: a teacher uses the label.
    """
    for name, teacher in teachers.items():
        if teacher.sees_label:
            raise DataError(
                f"{name} uses the class of each video as input, so a probe of it is meaningless.",
                "Probe the other teachers.",
            )


def check_present(name: str, embedded: TeacherEmbeddings, splits: ProbeSplits) -> None:
    """Check that the teacher has embeddings in both splits.

    Raises:
        DataError: the teacher has no embedding in one of the splits.
    """
    border = len(splits.train)
    for what, rows in (
        ("training", range(border)),
        (splits.split, range(border, border + len(splits.test))),
    ):
        if not embedded.present[rows.start : rows.stop].any():
            reason = next((embedded.unreadable[row] for row in rows if row in embedded.unreadable), "")
            raise DataError(
                f"{name} has no embedding for any of the {len(rows)} {what} videos"
                f"{': ' + reason if reason else '.'}"
            )


def _warn_unreadable(name: str, embedded: TeacherEmbeddings, videos: Sequence[Video]) -> None:
    if embedded.unreadable:
        first = min(embedded.unreadable)
        _log.warning(
            "%s: %d of %d videos are skipped because they are unreadable, for example '%s': %s",
            name,
            len(embedded.unreadable),
            len(videos),
            videos[first].id,
            embedded.unreadable[first],
        )


def _teacher(teacher: Teacher, embedded: TeacherEmbeddings, videos: Sequence[Video]) -> dict[str, Any]:
    unreadable = {videos[row].id: reason for row, reason in sorted(embedded.unreadable.items())}
    return {
        "variant": teacher.variant,
        "dim": teacher.dim,
        "random_weights": teacher.random_weights,
        "videos": embedded.counts(),
        "unreadable": dict(list(unreadable.items())[:50]),
    }


def probe(
    group: Sequence[str],
    manifest: Manifest,
    splits: ProbeSplits,
    embedded: Mapping[str, TeacherEmbeddings],
    k: int = NEIGHBOURS,
    *,
    with_linear: bool = True,
) -> dict[str, Any]:
    """Probe one teacher, or several teachers together on the videos that all of them can embed.

    Args:
        group: Names of the teachers.
        manifest: Data set.
        splits: Training and test videos.
        embedded: Embeddings of the training and test videos by teacher.
        k: Number of neighbours.
        with_linear: Whether to fit the logistic regression too, which takes longest.

    Returns:
        Counts and, if any video remains, metrics in percent and verdicts.
    """
    present = torch.stack([embedded[name].present for name in group]).all(dim=0).numpy()
    border, classes = len(splits.train), manifest.classes
    in_train, in_test = present[:border], present[border:]
    entry: dict[str, Any] = {
        "teachers": list(group),
        "train": {"present": int(in_train.sum()), "videos": border},
        "test": {"present": int(in_test.sum()), "videos": len(splits.test)},
    }
    if not in_train.any() or not in_test.any():
        _log.warning("Cannot probe %s together: no video has both modalities.", " and ".join(group))
        return entry
    train, test = _labelled(group, splits, embedded, present)
    entry |= _figures(probe_knn(train, test, len(classes), k), classes)
    if with_linear:
        linear = probe_linear(train, test, splits.validation[:, in_train])
        entry |= {"linear": 100 * linear.accuracy, "penalty": linear.penalty}
    return entry


def _labelled(
    group: Sequence[str],
    splits: ProbeSplits,
    embedded: Mapping[str, TeacherEmbeddings],
    present: NDArray[np.bool_],
) -> tuple[LabelledEmbeddings, LabelledEmbeddings]:
    """Training and test embeddings; those of several teachers are normalised and concatenated."""
    border = len(splits.train)
    in_train, in_test = present[:border], present[border:]
    embeddings = (embedded[name].value.numpy() for name in group)
    pairs = [center_and_normalize(each[:border][in_train], each[border:][in_test]) for each in embeddings]
    train, test = (np.concatenate(each, axis=1) for each in zip(*pairs, strict=True))
    labels = np.array([video.target for video in (*splits.train, *splits.test)])
    return (
        LabelledEmbeddings(train, labels[:border][in_train]),
        LabelledEmbeddings(test, labels[border:][in_test]),
    )


def _figures(knn: KnnProbe, classes: Sequence[str]) -> dict[str, Any]:
    by_name = dict(zip(classes, knn.classes, strict=True))
    ranked = sorted(by_name, key=lambda name: -(by_name[name].recall or 0))
    return {
        "knn": 100 * knn.accuracy,
        "chance": 100 * knn.chance,
        "verdicts": {
            verdict: [name for name in ranked if by_name[name].verdict == verdict] for verdict in VERDICTS
        },
        "per_class": {name: _in_percent(asdict(each)) for name, each in by_name.items()},
    }


def _in_percent(row: dict[str, Any]) -> dict[str, Any]:
    return {key: 100 * value if isinstance(value, float) else value for key, value in row.items()}
