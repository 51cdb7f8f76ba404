"""Evaluation of a published student: recognition, retrieval and probes on whole videos."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.manifest import UNLABELLED, Manifest, check_unreadable
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError, SystemSetupError, UsageError
from ccl_cli.evaluation.metrics import recognition, retrieval
from ccl_cli.evaluation.model import Model, load_student
from ccl_cli.evaluation.prediction_cache import cache_predictions
from ccl_cli.evaluation.predictor import SplitPredictions, predict_split
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.run.artefact import Artefact
from ccl_cli.training.run.folder import MODEL, TRACKERS, RunFolder, read_json
from ccl_cli.training.run.trackers import need_trackers, tracking
from ccl_cli.utils.distributed import is_main
from ccl_cli.utils.files import write_text
from ccl_cli.utils.json_text import flat

USUAL = ("recognition", "retrieval")
TASKS = (*USUAL, "probe")
_log = logging.getLogger("ccl")


def evaluate(
    run: str | Path | None = None,
    *,
    tasks: Collection[str] | None = None,
    data: str | None = None,
    split: str = "test",
    weights: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    precision: str = "fp32",
) -> dict[str, Any]:
    """Evaluate the student of a run or of a ``model.safetensors`` file.

    Recognition classifies the videos of ``split``. Retrieval uses them as queries, with the training split as
    gallery. The probe fits nearest neighbours and a logistic regression to features of the training split and
    evaluates them on ``split``. Missing and unreadable videos count as errors; videos without a label are
    ignored.

    Args:
        run: Run folder or model file. Default: the newest run.
        tasks: Some of :data:`TASKS`. Default: recognition and retrieval, or only retrieval without classes.
        data: Data set. Default: the run's. Recognition requires the same class names.
        split: "test" or "val".
        weights: "ema" or "raw", for a run with a moving average. Default: the published weights.
        batch_size: Windows per forward pass. Default: the recipe's.
        workers: Decoding processes. Default: the recipe's.
        precision: "fp32" or "bf16".

    Returns:
        Metrics in percent and counts, which are also written to the run's folder.

    Raises:
        UsageError: recognition was requested for a student without classes.
        DataError: the data set has no labels, or lacks a split.
    """
    if split not in ("val", "test"):
        raise UsageError(f"The split '{split}' cannot be evaluated.", "Use test or val.")
    model = load_student(run, weights)
    artefact = model.artefact
    tasks = _possible_tasks(model, tasks)
    splits = [split, "train"] if "retrieval" in tasks or "probe" in tasks else [split]
    listed = _manifest(model, data, splits, tasks)
    manifest, accelerator = listed.labelled(), set_up(precision)
    _check_probe(tasks, manifest, split)
    settings = {
        "batch_size": batch_size or artefact.recipe.eval.batch_size,
        "workers": artefact.recipe.train.workers if workers is None else workers,
    }
    _log.info("Evaluating %s on %s (%s).", model.path, manifest.name, split)
    predictions = {
        name: predict_manifest(artefact, manifest, name, accelerator, **settings) for name in splits
    }
    counts = {name: _counts(manifest, name, each) for name, each in predictions.items()}
    result = _about(model, listed, split) | {"counts": counts}
    result |= _figures(tasks, artefact.classes, manifest, split, predictions)
    if model.run is not None:
        _record_figures(model, model.run, result, weights, accelerator, own_data=data is None)
        if is_main() and is_tracked(result) and (data, batch_size, precision) == (None, None, "fp32"):
            for name, each in predictions.items():  # the report's figures use them
                cache_predictions(model.run, manifest, name, each)
    return result


def _possible_tasks(model: Model, tasks: Collection[str] | None) -> Collection[str]:
    """The requested tasks, or the default ones; an error for recognition without classes."""
    tasks = tasks if tasks is not None else USUAL if model.artefact.classes else ("retrieval",)
    if "recognition" in tasks:
        model.need_classes()
    return tasks


def _check_probe(tasks: Collection[str], manifest: Manifest, split: str) -> None:
    """Raise an error for a probe with a single class before reading any video."""
    if "probe" in tasks:
        from ccl_cli.evaluation.teacher_probe import split_videos  # importing scikit-learn takes a second

        split_videos(manifest, split)


def is_tracked(result: Mapping[str, Any]) -> bool:
    """Whether an evaluation belongs to the published weights of a run with trackers."""
    model = Path(result["model"])
    return model.name == MODEL and (model.parent / TRACKERS).exists()


def _record_figures(
    model: Model,
    run: RunFolder,
    result: dict[str, Any],
    weights: str | None,
    accelerator: Accelerator,
    *,
    own_data: bool,
) -> None:
    """Write the metrics; log those of the published weights on the run's data set to its trackers."""
    published = model.path == run.model
    if is_main():
        _record(run, result, "" if published else f"-{weights}")
        if run.summary.get("finished") is False:
            _log.warning("The run is unfinished: reports and its model card omit these results.")
    if own_data and is_tracked(result):
        _track(run, model.artefact.recipe, accelerator, result)


def _about(model: Model, manifest: Manifest, split: str) -> dict[str, Any]:
    """Metadata of the model and the data set."""
    header = model.artefact.header
    return {
        "model": str(model.path),
        "step": header.get("step"),
        "recipe": model.artefact.recipe.hash(),
        "data": {"name": manifest.name, "manifest": manifest.hash, "split": split},
        "selection": header.get("selection", "last"),
        "weights": header.get("weights", "raw"),
    }


def _figures(
    tasks: Collection[str],
    classes: Sequence[str],
    manifest: Manifest,
    split: str,
    predictions: Mapping[str, SplitPredictions],
) -> dict[str, Any]:
    """Metrics by task; those of the probe on the first process only."""
    queries, gallery = predictions[split], predictions.get("train")
    figures: dict[str, Any] = {}
    if "recognition" in tasks:
        figures["recognition"] = recognition(queries.scores, queries.labels, classes)
    if "retrieval" in tasks and gallery:
        figures["retrieval"] = retrieval(queries.features, queries.labels, gallery.features, gallery.labels)
    if "probe" in tasks and gallery and is_main():
        from ccl_cli.evaluation.student_probe import probe_student  # importing scikit-learn takes a second

        figures["probe"] = probe_student(manifest, split, gallery, queries)
    return figures


def predict_manifest(
    artefact: Artefact, manifest: Manifest, split: str, accelerator: Accelerator, **settings: int
) -> SplitPredictions:
    """Run a student on a split of a data set; for ``settings`` see :func:`predict_split`.

    Raises:
        DataError: the split does not exist, or too many of its videos are unreadable.
    """
    videos = manifest.split(split)
    if not videos:
        raise DataError(
            f"The data set '{manifest.name}' has no {split} split.",
            "Use a data set with test videos, for example --data 'folder:my_videos?test=0.25'.",
        )
    limit = artefact.recipe.max_unreadable
    missing = manifest.missing(split)
    check_unreadable(len(missing), manifest, split, limit, missing)
    predictions = predict_split(artefact, videos, accelerator, title=split, **settings)
    bad = [videos[index] for index in sorted(predictions.unreadable)]
    check_unreadable(len(bad), manifest, split, limit, bad)
    return predictions


def _manifest(model: Model, data: str | None, need: Collection[str], tasks: Collection[str]) -> Manifest:
    artefact = model.artefact
    if data is None and model.run is not None and (own := model.manifest):
        return own
    text = data or artefact.recipe.data
    if text is None:
        raise UsageError("The model does not record its data set.", "Set it with --data.")
    manifest = load_data(text, need)
    if "recognition" in tasks or set(manifest.classes) <= set(artefact.classes):
        manifest = _with_classes_of(artefact, manifest)
    if data is None and manifest.hash != artefact.header.get("manifest"):
        _log.warning("The data set has changed since the model was trained.")
    return manifest


def _with_classes_of(artefact: Artefact, manifest: Manifest) -> Manifest:
    """Renumber the labels according to the model's classes."""
    unknown = sorted(set(manifest.classes) - set(artefact.classes))
    if unknown:
        raise DataError(
            f"The model does not know {len(unknown)} class(es) of '{manifest.name}', such as '{unknown[0]}'.",
            f"It was trained on {len(artefact.classes)} classes: {', '.join(artefact.classes[:5])}, ... "
            "--retrieval and --probe also work with other classes.",
        )
    place = {name: label for label, name in enumerate(artefact.classes)}
    numbers = np.array([*(place[name] for name in manifest.classes), UNLABELLED], np.int32)
    videos = manifest.videos.with_column("label", numbers[manifest.videos.column("label")])  # -1: the last
    return Manifest(manifest.name, artefact.classes, videos)


def _counts(manifest: Manifest, split: str, predictions: SplitPredictions) -> dict[str, Any]:
    videos = manifest.split(split)
    missing = {video.id for video in manifest.missing(split)}
    bad = {videos[index].id: reason for index, reason in sorted(predictions.unreadable.items())}
    corrupt = {name: reason for name, reason in bad.items() if name not in missing}
    return {
        "videos": len(videos),
        "read": len(videos) - len(bad),
        "missing": len(missing),
        "corrupt": len(corrupt),
        "unreadable": dict(list(bad.items())[:50]),
    }


def _record(folder: RunFolder, result: dict[str, Any], suffix: str) -> None:
    """Write the metrics, merged with earlier ones of the same model on the same videos.

    Metrics of unpublished weights go to a file with a suffix, so that reports ignore them.
    """
    data = result["data"]
    name = re.sub(r"[^\w.-]+", "_", f"{data['name']}-{data['split']}{suffix}")
    path = folder.path / f"eval-{name}.json"
    before = read_json(path)
    if (before.get("data"), before.get("step")) == (data, result["step"]):
        counts = before.get("counts", {}) | result["counts"]
        result = before | result | {"counts": counts}
    write_text(path, json.dumps(result, indent=2) + "\n")
    figures = {task: _short(result[task]) for task in TASKS if task in result}
    evaluations = folder.summary.get("evaluation", {}) | {name: figures}
    folder.update_summary({"evaluation": evaluations})


def _track(run: RunFolder, recipe: Recipe, accelerator: Accelerator, result: dict[str, Any]) -> None:
    """Log the metrics to the run's trackers; a failure of a tracker only causes a warning."""
    split = result["data"]["split"]
    figures = flat({task: _short(result[task]) for task in TASKS if task in result})
    try:
        need_trackers(recipe.train.trackers)
        with tracking(accelerator, recipe, run):
            accelerator.log({f"{split}/{name}": each for name, each in figures.items() if each is not None})
    except SystemSetupError as error:
        _log.warning("%s", error)


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if not isinstance(value, dict)}
