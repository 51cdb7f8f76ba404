"""Cached correspondence between a run's teachers and its classes, in the run's folder. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ccl_cli.errors import CclError, DataError
from ccl_cli.evaluation.verdicts import NEIGHBOURS, RULE
from ccl_cli.training.run.folder import RunFolder, read_json
from ccl_cli.utils.files import write_text


@dataclass(frozen=True)
class Sample:
    """The predictions of a teacher's own classifier for a video.

    Attributes:
        video: Id of the video.
        label: Class of the video.
        verdict: Verdict on this class for the teacher.
        top: The teacher's own classes and their probabilities in percent, most probable first.
    """

    video: str
    label: str
    verdict: str
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Correspondence:
    """Correspondence of one teacher and the classes of a run.

    Attributes:
        probe: kNN results of ``ccl teachers probe`` in percent, with a verdict per class.
        samples: Videos from a few classes of each verdict.
        silent: Reason why there are no samples, or "".
    """

    probe: Mapping[str, Any]
    samples: tuple[Sample, ...]
    silent: str = ""


def cached_correspondence(folder: Path, teacher: str, split: str) -> Correspondence | None:
    """Return a cached result, if it belongs to this teacher, these videos and the current rule."""
    record = read_json(_path(folder, teacher, split))
    try:
        if record.pop("key", None) == cache_key(folder, teacher, split):
            return TypeAdapter(Correspondence).validate_python(record)
    except (CclError, ValidationError):
        pass
    return None


def write_correspondence(folder: Path, teacher: str, split: str, result: Correspondence) -> None:
    """Cache the result of one teacher."""
    record = {"key": cache_key(folder, teacher, split), **asdict(result)}
    write_text(_path(folder, teacher, split), json.dumps(record, indent=2) + "\n")


def cache_key(folder: Path, teacher: str, split: str) -> dict[str, Any]:
    """Return the key that a cached result must have.

    Raises:
        DataError: the run does not record its videos or its teacher.
    """
    summary = RunFolder(folder).summary
    manifest = summary.get("data", {}).get("manifest")
    fingerprint = summary.get("teachers", {}).get(teacher, {}).get("fingerprint")
    if not manifest or not fingerprint:
        raise DataError(f"'{folder}' does not record its videos or its teacher {teacher}.")
    return {"manifest": manifest, "teacher": fingerprint, "split": split, "k": NEIGHBOURS, "rule": RULE}


def _path(folder: Path, teacher: str, split: str) -> Path:
    name = re.sub(r"[^\w.-]+", "_", teacher)
    return folder / f"correspondence-{name}-{split}.json"
