"""The published model: a file with the student's weights, and a header with recipe and classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open

from ccl_cli import __version__
from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import WeightsError
from ccl_cli.students import Student
from ccl_cli.training.build import make_student
from ccl_cli.utils import json_text
from ccl_cli.utils.sentences import invalid_value
from ccl_cli.utils.tensor_files import write_tensors

_FORMAT = "ccl-model-1"
_KEY = "ccl"


class _Header(BaseModel):
    format: Literal["ccl-model-1"]
    recipe: Recipe
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Artefact:
    """A student with the settings that are needed to use it."""

    student: Student
    recipe: Recipe
    classes: tuple[str, ...]
    header: dict[str, Any]


def save_model(
    path: Path, student: Student, recipe: Recipe, classes: tuple[str, ...], **records: Any
) -> None:
    """Write ``model.safetensors`` atomically. The header is one JSON text, so equal models have equal bytes.

    ``classes`` are in the order of the scores, and empty for a student without classifier. ``records`` are
    further entries of the header, such as the hash of the manifest.
    """
    header = {
        "format": _FORMAT,
        "version": __version__,
        "recipe": recipe.model_dump(mode="json"),
        "classes": classes,
        "preprocessing": recipe.clip.model_dump(mode="json"),
        **records,
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    write_tensors(path, tensors, {_KEY: json.dumps(header)})


def load_model(path: Path) -> Artefact:
    """Read a file of :func:`save_model`, without any other file. Raises a WeightsError if it is none."""
    if not path.is_file():
        raise WeightsError(f"There is no model at '{path}'.", "Train one with `ccl train`.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json_text.parse((file.metadata() or {}).get(_KEY, "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        known = _Header.model_validate(header)
        student = make_student(known.recipe.student, len(known.classes), with_weights=False)
        student.load_state_dict(state)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = invalid_value(error) if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise WeightsError(
            f"'{path}' is damaged, or no model of this version of ccl: {reason}.",
            "Name a run's folder, or its model.safetensors. If it is one, get it again, or train again.",
        ) from error
    return Artefact(student.eval(), known.recipe, known.classes, header)
