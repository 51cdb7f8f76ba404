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
    if tasks is None:
        tasks = USUAL if model.artefact.classes else ("retrieval",)
    splits = [split] if set(tasks) <= {"recognition"} else [split, "train"]
    listed = _manifest(model, data, splits, tasks)
    manifest, accelerator = listed.labelled(), set_up(precision)
    _log.info("Evaluating %s on %s (%s).", model.path, manifest.name, split)
    settings = {"batch_size": batch_size, "workers": workers}
    predictions = {
        name: predict_manifest(model.artefact, manifest, name, accelerator, **settings) for name in splits
    }
    result = _about(model, listed, split) | _metrics(tasks, manifest, split, predictions)
    if model.run is not None and is_main():
        _record(model.run, result, "" if model.path == model.run.model else f"-{weights}")
    if model.run is not None and data is None and is_tracked(result):
        _track(model.run, model.artefact, accelerator, result)
        if is_main() and (batch_size, precision) == (None, "fp32"):
            for name, each in predictions.items():  # the report's figures use them
                cache_predictions(model.run, manifest, name, each)
    return result


def is_tracked(result: Mapping[str, Any]) -> bool:
    """Whether an evaluation belongs to the published weights of a run with trackers."""
    model = Path(result["model"])
    return model.name == MODEL and (model.parent / TRACKERS).exists()


def predict_manifest(
    artefact: Artefact, manifest: Manifest, split: str, accelerator: Accelerator, **settings: int | None
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


def _manifest(model: Model, data: str | None, splits: Sequence[str], tasks: Collection[str]) -> Manifest:
    """Load the data set, with the model's numbers of classes, and check that the tasks are possible."""
    if "recognition" in tasks:
        model.need_classes()
    manifest = model.manifest if data is None and model.run is not None else None
    if manifest is None:
        manifest = _load(model.artefact, data, splits, "recognition" in tasks)
    if "probe" in tasks:
        from ccl_cli.evaluation.probe import split_videos  # importing scikit-learn takes a second

        split_videos(manifest, splits[0])
    return manifest


def _load(artefact: Artefact, data: str | None, splits: Sequence[str], need_classes: bool) -> Manifest:
    """Load the data set; its labels are numbered like the model's classes if it has no others."""
    text = data or artefact.recipe.data
    if text is None:
        raise UsageError("The model does not record its data set.", "Set it with --data.")
    manifest = load_data(text, splits)
    unknown = sorted(set(manifest.classes) - set(artefact.classes))
    if unknown and need_classes:
        raise DataError(
            f"The model does not know {len(unknown)} class(es) of '{manifest.name}', such as '{unknown[0]}'.",
            f"It was trained on {len(artefact.classes)} classes: {', '.join(artefact.classes[:5])}, ... "
            "--retrieval and --probe also work with other classes.",
        )
    if not unknown:
        place = {name: label for label, name in enumerate(artefact.classes)}
        numbers = np.array([*(place[name] for name in manifest.classes), UNLABELLED], np.int32)
        labels = numbers[manifest.videos.column("label")]  # -1: the last
        manifest = Manifest(manifest.name, artefact.classes, manifest.videos.with_column("label", labels))
    if data is None and manifest.hash != artefact.header.get("manifest"):
        _log.warning("The data set has changed since the model was trained.")
    return manifest


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


def _metrics(
    tasks: Collection[str], manifest: Manifest, split: str, predictions: Mapping[str, SplitPredictions]
) -> dict[str, Any]:
    """Counts of videos, and metrics by task; those of the probe on the first process only."""
    queries = predictions[split]
    counts = {name: _counts(manifest, name, each) for name, each in predictions.items()}
    metrics: dict[str, Any] = {"counts": counts}
    if "recognition" in tasks:
        metrics["recognition"] = recognition(queries.scores, queries.labels, manifest.classes)
    if "retrieval" in tasks:
        gallery = predictions["train"]
        metrics["retrieval"] = retrieval(queries.features, queries.labels, gallery.features, gallery.labels)
    if "probe" in tasks and is_main():
        from ccl_cli.evaluation.probe import probe_student  # importing scikit-learn takes a second

        metrics["probe"] = probe_student(manifest, split, predictions["train"], queries)
    return metrics


def _counts(manifest: Manifest, split: str, predictions: SplitPredictions) -> dict[str, Any]:
    videos = manifest.split(split)
    missing = {video.id for video in manifest.missing(split)}
    bad = {videos[index].id: reason for index, reason in sorted(predictions.unreadable.items())}
    return {
        "videos": len(videos),
        "read": len(videos) - len(bad),
        "missing": len(missing),
        "corrupt": len(bad.keys() - missing),
        "unreadable": dict(list(bad.items())[:50]),
    }


def _record(run: RunFolder, result: dict[str, Any], suffix: str) -> None:
    """Write the metrics, merged with earlier ones of the same model on the same videos.

    Metrics of unpublished weights go to a file with a suffix, so that reports ignore them.
    """
    data = result["data"]
    name = re.sub(r"[^\w.-]+", "_", f"{data['name']}-{data['split']}{suffix}")
    path = run.path / f"eval-{name}.json"
    before = read_json(path)
    if (before.get("data"), before.get("step")) == (data, result["step"]):
        counts = before.get("counts", {}) | result["counts"]
        result = before | result | {"counts": counts}
    write_text(path, json.dumps(result, indent=2) + "\n")
    summary = run.summary
    run.update_summary({"evaluation": summary.get("evaluation", {}) | {name: _short(result)}})
    if summary.get("finished") is False:
        _log.warning("The run is unfinished: reports and its model card omit these results.")


def _track(run: RunFolder, artefact: Artefact, accelerator: Accelerator, result: dict[str, Any]) -> None:
    """Log the metrics to the run's trackers; a failure of a tracker only causes a warning."""
    recipe, split = artefact.recipe, result["data"]["split"]
    metrics = {name: each for name, each in flat(_short(result)).items() if each is not None}
    try:
        need_trackers(recipe.train.trackers)
        with tracking(accelerator, recipe, run):
            accelerator.log({f"{split}/{name}": each for name, each in metrics.items()})
    except SystemSetupError as error:
        _log.warning("%s", error)


def _short(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metrics by task, without those of single classes."""
    return {
        task: {name: value for name, value in result[task].items() if not isinstance(value, dict)}
        for task in TASKS
        if task in result
    }
