"""Scores and features of a run's videos, computed once and kept beside the run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.video.storage import size_of
from ccl_cli.errors import DataError
from ccl_cli.evaluation.evaluate import Described, describe
from ccl_cli.training.artefact import load_model
from ccl_cli.training.device import set_up
from ccl_cli.training.runs import MANIFEST, RunFolder
from ccl_cli.utils import json_text
from ccl_cli.utils.json_text import Shape, fits
from ccl_cli.utils.tensor_files import write_tensors

_KEY, _GONE = "ccl", -1
_SHAPE: Shape = {"unreadable": {"*": str}}


@dataclass(frozen=True)
class Videos:
    """One split of a run's data set, as its student sees it."""

    name: str
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    described: Described


def described(folder: Path, split: str) -> Videos:
    """What a run's student makes of one split of the data it was trained on.

    Kept in ``described-<data>-<split>.safetensors``, and computed anew when the model, the list of videos or
    a file has changed. Files that are gone since do not matter.

    Raises:
        DataError: the run does not say which videos it had, or none of them is there.
        WeightsError: the run has no model, or a damaged one.
    """
    run = RunFolder(folder)
    if not (folder / MANIFEST).is_file():
        raise DataError(f"'{folder}' holds no {MANIFEST}, which lists its videos.", "Train the run again.")
    manifest = Manifest.load(folder / MANIFEST)
    videos = manifest.split(split)
    if not videos:
        raise DataError(
            f"The data set '{manifest.name}' has no {split} split.", "`ccl data stats` counts its splits."
        )
    found_sizes = (size_of(video.path) for video in videos)
    sizes = [_GONE if size is None else size for size in found_sizes]
    key = {"model": _hash_of(run.model), "videos": _hash_of_rows(manifest, videos)}
    name = re.sub(r"[^\w.-]+", "_", manifest.name)
    path = folder / f"described-{name}-{split}.safetensors"
    found = _read(path, key, sizes)
    if found is None:
        if set(sizes) == {_GONE}:
            raise DataError(
                f"The {split} videos of '{manifest.name}' are gone, for example '{videos[0].path}'.",
                "Put them back, or name a run whose videos are there.",
            )
        found = _compute(run, videos, split)
        _write(path, found, key, sizes)
    return Videos(manifest.name, manifest.classes, videos, found)


def _compute(run: RunFolder, videos: Sequence[Video], split: str) -> Described:
    artefact = load_model(run.model)
    recipe = artefact.recipe
    return describe(
        artefact,
        videos,
        set_up("fp32"),
        batch_size=recipe.eval.batch_size,
        workers=recipe.train.workers,
        title=f"{run.path.name} {split}",
    )


def _read(path: Path, key: dict[str, str], sizes: Sequence[int]) -> Described | None:
    try:
        with safe_open(path, framework="pt") as file:
            record = json_text.parse((file.metadata() or {}).get(_KEY, "{}"))
            names = ("scores", "features", "labels", "sizes")
            scores, features, labels, then = (file.get_tensor(name) for name in names)
    except (SafetensorError, OSError, ValueError):
        return None
    changed = any(now not in (before, _GONE) for now, before in zip(sizes, then.tolist(), strict=False))
    if changed or not fits(record, _SHAPE) or {name: record.get(name) for name in key} != key:
        return None
    unreadable = {int(row): reason for row, reason in record["unreadable"].items() if row.isdecimal()}
    return Described(scores, features, labels, unreadable)


def _write(path: Path, found: Described, key: dict[str, str], sizes: Sequence[int]) -> None:
    tensors = {
        "scores": found.scores,
        "features": found.features,
        "labels": found.labels,
        "sizes": torch.tensor(sizes, dtype=torch.int64),
    }
    record = json.dumps(key | {"unreadable": found.unreadable})
    write_tensors(path, {name: value.contiguous() for name, value in tensors.items()}, {_KEY: record})


def _hash_of(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of_rows(manifest: Manifest, videos: Sequence[Video]) -> str:
    rows = [(video.id, video.label, video.start, video.end) for video in videos]
    return hashlib.sha256(json.dumps([manifest.classes, rows]).encode()).hexdigest()
