"""Correspondence between a run's teachers and its classes, measured once and cached in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ccl_cli import registry
from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Clip
from ccl_cli.config.spec import parse_model
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.video.storage import size_of
from ccl_cli.errors import CclError, DataError, WeightsError
from ccl_cli.evaluation.correspondence_cache import Correspondence, Sample, cache_key, write_correspondence
from ccl_cli.evaluation.model import missing_videos, run_manifest
from ccl_cli.evaluation.teacher_embeddings import TeacherEmbeddings, classify_videos
from ccl_cli.evaluation.teacher_probe import (
    ProbeSplits,
    check_blind,
    check_present,
    embed_splits,
    probe,
    split_videos,
)
from ccl_cli.teachers import Teacher
from ccl_cli.training.build import check_coverage, load_teachers
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.run.folder import RECIPE, RunFolder

TOP, EACH = 10, 2  # classes per sample, and samples per verdict


def measure(folder: Path, teachers: Sequence[str], split: str) -> dict[str, Correspondence | CclError]:
    """Probe teachers of a run on its videos, and cache the results in the run's folder.

    Classifies the videos of ``split`` by their nearest training videos.

    Args:
        folder: Run folder.
        teachers: Names of teachers in the run's summary.
        split: Split of the run's data set.

    Returns:
        By teacher, the result or the reason why there is none, such as missing weights or changed videos.
    """
    run = RunFolder(folder)
    try:
        manifest = _own_manifest(run)
        splits = split_videos(manifest, split)
        recipe = load_recipe(str(folder / RECIPE))
        specs = dict(zip(run.summary.get("teachers", {}), recipe.teachers, strict=False))
    except CclError as error:
        return dict.fromkeys(teachers, error)
    results: dict[str, Correspondence | CclError] = {}
    loaded: dict[str, Teacher] = {}
    for name in teachers:
        try:
            loaded[name] = _own_teacher(run, name, specs.get(name), split, manifest)
            ids = [video.id for video in (*splits.train, *splits.test)]
            check_coverage({name: loaded[name]}, ids)
        except CclError as error:
            loaded.pop(name, None)
            results[name] = error
    try:
        embedded = embed_splits(loaded, splits, workers=recipe.train.workers) if loaded else {}
    except CclError as error:
        return results | dict.fromkeys(loaded, error)
    for name, embeddings in embedded.items():
        try:
            result = _measure_one(name, specs[name], loaded[name], embeddings, manifest, splits)
            write_correspondence(run, name, split, result)
            results[name] = result
        except CclError as error:
            results[name] = error
    return results


def _own_manifest(run: RunFolder) -> Manifest:
    """Load the run's manifest, if its videos are unchanged since training."""
    manifest = run_manifest(run.path)
    if manifest.hash == run.summary.get("data", {}).get("manifest"):
        return manifest
    if all(size_of(video.path) is None for video in manifest.videos):
        raise missing_videos("videos", manifest.name, manifest.videos[0])
    raise DataError(
        f"Some videos of '{manifest.name}' are missing or have changed since '{run.path}' was trained.",
        "Restore the original files.",
    )


def _own_teacher(run: RunFolder, name: str, spec: str | None, split: str, manifest: Manifest) -> Teacher:
    """Load the teacher, if it is unchanged since training."""
    then = cache_key(run, name, split)["teacher"]
    if spec is None:
        raise DataError(f"The recipe of '{run.path}' does not contain {name}.")
    (teacher,) = load_teachers([spec], manifest.classes).values()
    check_blind({name: teacher})
    if teacher.fingerprint != then:
        raise WeightsError(
            f"The weights or settings of {name} have changed since '{run.path}' was trained.",
            "Restore them.",
        )
    return teacher


def _measure_one(
    name: str,
    spec: str,
    teacher: Teacher,
    embedded: TeacherEmbeddings,
    manifest: Manifest,
    splits: ProbeSplits,
) -> Correspondence:
    check_present(name, embedded, splits)
    figures = probe([name], manifest, splits, {name: embedded}, with_linear=False)
    if silent := _why_silent(teacher):
        return Correspondence(figures, (), silent)
    chosen = _sample(
        figures["verdicts"], manifest.classes, splits.test, embedded.present[len(splits.train) :]
    )
    with registry.blaming(registry.find(registry.TEACHERS, parse_model(spec).label)):
        scores = classify_videos(teacher, [video for _, video in chosen], set_up("fp32"), clip=Clip())
    samples = [
        Sample(video.id, manifest.class_name(video), verdict, _top(teacher.classes or (), row))
        for (verdict, video), row in zip(chosen, scores, strict=True)
    ]
    return Correspondence(figures, tuple(samples))


def _why_silent(teacher: Teacher) -> str:
    if not teacher.classes:
        return "has no classes of its own"
    return "has random weights, so its own classes are meaningless" if teacher.random_weights else ""


def _sample(
    verdicts: Mapping[str, Sequence[str]], classes: Sequence[str], videos: Sequence[Video], present: Tensor
) -> list[tuple[str, Video]]:
    """Select the first video of a few classes per verdict, evenly spread from the best to the worst class."""
    firsts: dict[str, Video] = {}
    for video, has_embedding in zip(videos, present.tolist(), strict=True):
        if has_embedding:
            firsts.setdefault(classes[video.target], video)
    return [
        (verdict, firsts[names[(2 * place + 1) * len(names) // (2 * count)]])
        for verdict, names in verdicts.items()
        for count in [min(EACH, len(names))]
        for place in range(count)
    ]


def _top(classes: Sequence[str], shares: Tensor) -> tuple[tuple[str, float], ...]:
    values, places = shares.topk(min(TOP, len(classes)))
    return tuple((classes[place], 100 * share) for place, share in zip(places, values.tolist(), strict=True))
