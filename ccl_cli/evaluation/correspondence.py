"""How well a run's teachers know its classes: measured once per teacher, and cached beside the run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ccl_cli import registry
from ccl_cli.config.load import load_recipe
from ccl_cli.config.recipe import Clip
from ccl_cli.config.spec import parse_model
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.video.storage import size_of
from ccl_cli.errors import CclError, DataError, WeightsError
from ccl_cli.evaluation.classifiers import RULE
from ccl_cli.evaluation.model import gone, run_manifest
from ccl_cli.evaluation.teacher_embeddings import TeacherEmbeddings, classify_videos
from ccl_cli.evaluation.teacher_probe import (
    NEIGHBOURS,
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
from ccl_cli.training.run.folder import RECIPE, RunFolder, read_json
from ccl_cli.utils.files import write_text

TOP, EACH = 10, 2  # own classes of a sample, and samples of a verdict
_FORMAT = "ccl-correspondence-1"


@dataclass(frozen=True)
class Sample:
    """A teacher's own classes of one video.

    Attributes:
        video: Its id.
        label: Its class.
        verdict: How that class goes with the teacher's embeddings.
        top: The teacher's own classes, the most probable first, and their probabilities in percent.
    """

    video: str
    label: str
    verdict: str
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Correspondence:
    """One teacher of a run and the classes of its data.

    Attributes:
        probe: As of ``ccl teachers probe``, without the linear layer: percent, and a verdict per class.
        samples: Videos of a few classes of each verdict.
        silent: Why there are no samples, or "".
    """

    probe: Mapping[str, Any]
    samples: tuple[Sample, ...]
    silent: str = ""


_RESULT = TypeAdapter(Correspondence)


def cached_correspondence(folder: Path, teacher: str, split: str) -> Correspondence | None:
    """An earlier measurement, if it was with this teacher, these videos and today's rule.

    Args:
        folder: A run.
        teacher: Its name in the run's summary.
        split: Whose videos were classified.
    """
    run = RunFolder(folder)
    record = read_json(_path(run, teacher, split))
    try:
        if record.pop("key", None) != _key(run, teacher, split):
            return None
        return _RESULT.validate_python(record)
    except (CclError, ValidationError):
        return None


def measure(folder: Path, teachers: Sequence[str], split: str) -> dict[str, Correspondence | CclError]:
    """Probe teachers of a run on its videos, and cache the results beside the run.

    The training videos are the neighbours, those of ``split`` are classified.

    Args:
        folder: A run.
        teachers: Their names in the run's summary.
        split: A split of the run's data.

    Returns:
        By teacher: the result, or why there is none, such as weights or videos that are gone or have changed.
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
            check_coverage({name: loaded[name]}, (*splits.train, *splits.test))
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
            _write(run, name, split, result)
            results[name] = result
        except CclError as error:
            results[name] = error
    return results


def _own_manifest(run: RunFolder) -> Manifest:
    """The run's list of videos, if they still are what they were when it was trained."""
    manifest = run_manifest(run.path)
    if manifest.hash == run.summary.get("data", {}).get("manifest"):
        return manifest
    if all(size_of(video.path) is None for video in manifest.videos):
        raise gone("videos", manifest.name, manifest.videos[0])
    raise DataError(
        f"Some videos of '{manifest.name}' are gone or have changed since '{run.path}' was trained.",
        "Put them back as they were.",
    )


def _own_teacher(run: RunFolder, name: str, spec: str | None, split: str, manifest: Manifest) -> Teacher:
    """The teacher, if it still is the one that the run had."""
    then = _key(run, name, split)["teacher"]
    if spec is None:
        raise DataError(f"The recipe of '{run.path}' does not name {name}.")
    (teacher,) = load_teachers([spec], manifest.classes).values()
    check_blind({name: teacher})
    if teacher.fingerprint != then:
        raise WeightsError(
            f"{name} has other weights or settings than when '{run.path}' was trained.",
            "Put them back as they were.",
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
    return "has random weights, so its own classes mean nothing" if teacher.random_weights else ""


def _sample(
    verdicts: Mapping[str, Sequence[str]], classes: Sequence[str], videos: Sequence[Video], present: Tensor
) -> list[tuple[str, Video]]:
    """The first video of a few classes of each verdict, evenly spread over those from best to worst."""
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


def _key(run: RunFolder, teacher: str, split: str) -> dict[str, Any]:
    summary = run.summary
    manifest = summary.get("data", {}).get("manifest")
    fingerprint = summary.get("teachers", {}).get(teacher, {}).get("fingerprint")
    if not manifest or not fingerprint:
        raise DataError(f"'{run.path}' does not say which videos or which {teacher} it was trained with.")
    return {
        "format": _FORMAT,
        "manifest": manifest,
        "teacher": fingerprint,
        "split": split,
        "k": NEIGHBOURS,
        "rule": RULE,
    }


def _path(run: RunFolder, teacher: str, split: str) -> Path:
    name = re.sub(r"[^\w.-]+", "_", teacher)
    return run.path / f"correspondence-{name}-{split}.json"


def _write(run: RunFolder, teacher: str, split: str, result: Correspondence) -> None:
    record = {"key": _key(run, teacher, split), **asdict(result)}
    write_text(_path(run, teacher, split), json.dumps(record, indent=2) + "\n")
