"""Correspondence between a run's teachers and its classes, measured once and cached in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ccl_cli import registry
from ccl_cli.config.load import load_recipe
from ccl_cli.config.spec import parse_model
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.video.storage import size_of
from ccl_cli.errors import CclError, DataError, WeightsError
from ccl_cli.evaluation.correspondence_cache import Correspondence, Sample, cache_key, write_correspondence
from ccl_cli.evaluation.model import missing_videos, run_manifest
from ccl_cli.evaluation.probe import ProbeSplits, check_blind, check_present, probe, split_videos
from ccl_cli.evaluation.teacher_embeddings import TeacherEmbeddings, classify_videos, embed_videos
from ccl_cli.teachers import Teacher
from ccl_cli.training.build import check_coverage, load_teachers
from ccl_cli.training.run.folder import RECIPE, RunFolder

TOP, EACH = 10, 2  # classes per sample, and samples per verdict


def measure(folder: Path, teachers: Sequence[str], split: str) -> dict[str, Correspondence | CclError]:
    """Probe teachers of a run on its videos, and cache the results in the run's folder.

    Classifies the videos of ``split`` by their nearest training videos. ``teachers`` are names in the run's
    summary.

    Returns:
        By teacher, the result or the reason why there is none, such as missing weights or changed videos.
    """
    results: dict[str, Correspondence | CclError] = {}
    loaded: dict[str, Teacher] = {}
    try:
        splits = split_videos(_own_manifest(folder), split)
        recipe = load_recipe(str(folder / RECIPE))
        specs = dict(zip(RunFolder(folder).summary.get("teachers", {}), recipe.teachers, strict=False))
        for name in teachers:
            try:
                loaded[name] = _own_teacher(folder, name, specs.get(name), splits)
            except CclError as error:
                results[name] = error
        embedded = embed_videos(loaded, splits.videos, workers=recipe.train.workers) if loaded else {}
    except CclError as error:
        return dict.fromkeys(teachers, error) | results
    for name, teacher in loaded.items():
        try:
            result = _measure_one(name, specs[name], teacher, embedded[name], splits)
            write_correspondence(folder, name, split, result)
            results[name] = result
        except CclError as error:
            results[name] = error
    return results


def _own_manifest(folder: Path) -> Manifest:
    """Load the run's manifest, if its videos are unchanged since training."""
    manifest = run_manifest(folder)
    if manifest.hash == RunFolder(folder).summary.get("data", {}).get("manifest"):
        return manifest
    if all(size_of(video.path) is None for video in manifest.videos):
        raise missing_videos("videos", manifest.name, manifest.videos[0])
    raise DataError(
        f"Some videos of '{manifest.name}' are missing or have changed since '{folder}' was trained.",
        "Restore the original files.",
    )


def _own_teacher(folder: Path, name: str, spec: str | None, splits: ProbeSplits) -> Teacher:
    """Load the teacher, if it is unchanged since training."""
    expected = cache_key(folder, name, splits.split)["teacher"]
    if spec is None:
        raise DataError(f"The recipe of '{folder}' does not contain {name}.")
    (teacher,) = load_teachers([spec], splits.classes).values()
    check_blind({name: teacher})
    if teacher.fingerprint != expected:
        raise WeightsError(
            f"The weights or settings of {name} have changed since '{folder}' was trained.", "Restore them."
        )
    check_coverage({name: teacher}, [video.id for video in splits.videos])
    return teacher


def _measure_one(
    name: str, spec: str, teacher: Teacher, embedded: TeacherEmbeddings, splits: ProbeSplits
) -> Correspondence:
    check_present(name, embedded, splits)
    figures = probe([name], splits, {name: embedded}, with_linear=False)
    if not teacher.classes:
        return Correspondence(figures, (), "has no classes of its own")
    if teacher.random_weights:
        return Correspondence(figures, (), "has random weights, so its own classes are meaningless")
    chosen = _sample(figures["verdicts"], splits, embedded.present[len(splits.train) :])
    with registry.blaming(registry.find(registry.TEACHERS, parse_model(spec).label)):
        scores = classify_videos(teacher, [video for _, video in chosen])
    samples = []
    for (verdict, video), shares in zip(chosen, scores, strict=True):
        values, labels = shares.topk(min(TOP, len(shares)))
        names = [teacher.classes[label] for label in labels.tolist()]
        top = tuple(zip(names, (100 * value for value in values.tolist()), strict=True))
        samples.append(Sample(video.id, splits.classes[video.target], verdict, top))
    return Correspondence(figures, tuple(samples))


def _sample(
    verdicts: Mapping[str, Sequence[str]], splits: ProbeSplits, present: Tensor
) -> list[tuple[str, Video]]:
    """Select the first video of a few classes per verdict, evenly spread from the best to the worst class."""
    firsts: dict[str, Video] = {}
    for video, has_embedding in zip(splits.test, present.tolist(), strict=True):
        if has_embedding:
            firsts.setdefault(splits.classes[video.target], video)
    chosen = []
    for verdict, names in verdicts.items():
        count = min(EACH, len(names))
        places = [(2 * number + 1) * len(names) // (2 * count) for number in range(count)]
        chosen += [(verdict, firsts[names[place]]) for place in places]
    return chosen
