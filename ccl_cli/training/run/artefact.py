"""The published model: a file with the student's weights, and a header with recipe and classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ccl_cli import __version__
from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import WeightsError
from ccl_cli.students import Student
from ccl_cli.training.build import make_student
from ccl_cli.utils import json_text
from ccl_cli.utils.tensor_files import write_tensors

_FORMAT = "ccl-model-1"
_KEY = "ccl"
_NAME_ONE = "Name a run's folder, or its model.safetensors."


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

    Args:
        path: Output file.
        student: The network.
        recipe: Recipe of the run.
        classes: Class names in the order of the scores; empty for a student without classifier.
        records: Further entries of the header, such as the hash of the manifest.
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
    """Read a file of :func:`save_model`. No other file is needed.

    Raises:
        WeightsError: the file is missing, damaged, or not a model of ccl.
    """
    if not path.is_file():
        raise WeightsError(f"There is no model at '{path}'.", "Train one with `ccl train`.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json_text.parse((file.metadata() or {}).get(_KEY, "{}"))
            if not isinstance(header, dict) or header.get("format") != _FORMAT:
                raise WeightsError(f"'{path}' is not a model that ccl wrote.", _NAME_ONE)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        recipe = _recipe(path, header)
        classes = _classes(header)
        student = make_student(recipe.student, len(classes), with_weights=False)
        _fill(student, state, recipe.student)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(
            f"'{path}' is damaged, or no model: {str(error).splitlines()[0]}.",
            f"{_NAME_ONE} If it is one, get it again, or train again.",
        ) from error
    return Artefact(student.eval(), recipe, classes, header)


def _recipe(path: Path, header: dict[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(header["recipe"])
    except ValidationError as error:
        raise WeightsError(
            f"'{path}' was written by ccl {header.get('version')}; {__version__} does not read its recipe.",
            "Use that version.",
        ) from error


def _fill(student: Student, state: dict[str, Tensor], name: str) -> None:
    try:
        student.load_state_dict(state)
    except RuntimeError as error:  # its text lists every tensor
        raise ValueError(f"its weights are not those of '{name}' for its classes") from error


def _classes(header: dict[str, Any]) -> tuple[str, ...]:
    names = header["classes"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its classes are not a list of names")
    return tuple(names)
