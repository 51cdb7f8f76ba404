"""Weights files of ``ccl teachers fit``, with a header about their training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ccl_cli import __version__
from ccl_cli.config.spec import Spec
from ccl_cli.errors import WeightsError
from ccl_cli.utils.download import reason
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.sentences import invalid_value
from ccl_cli.utils.tensor_files import write_tensors

_KEY = "ccl"


class Fitted(BaseModel, frozen=True, strict=True):
    """Header of a weights file: how to rebuild the teacher, and its training data.

    Attributes:
        teacher: ``modality:name``.
        classes: Classes of its classifier.
        options: Options of its name, without ``weights``.
        dim: Embedding dimension.
        preprocess: ``repr`` of the preprocessing, for information.
        data: Name of the training data set.
        manifest: Hash of the training data set.
    """

    format: Literal["ccl-teacher-1"] = "ccl-teacher-1"
    teacher: str
    classes: tuple[str, ...]
    options: dict[str, Any]
    dim: int
    preprocess: str
    data: str
    manifest: str


def default_path(modality: str, name: str, data: str) -> Path:
    """Default path for the weights of a teacher fitted to a data set, which ``weights=NAME`` loads."""
    return cache_dir() / "weights" / f"{modality}-{name}-{data}.safetensors"


def save_fitted(path: Path, fitted: Fitted, tensors: Mapping[str, Tensor], **records: Any) -> None:
    """Write a weights file atomically, with further ``records`` in its header.

    Raises:
        OSError: the file cannot be written.
    """
    header = {"version": __version__, **fitted.model_dump(), **records}
    whole = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    write_tensors(path, whole, {_KEY: json.dumps(header)})


def read_fitted(path: Path) -> Fitted | None:
    """Read the header written by :func:`save_fitted`; None for other files.

    Raises:
        WeightsError: the file is damaged.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY, "")
        is_fitted = Fitted.model_fields["format"].default in text
        return Fitted.model_validate_json(text) if is_fitted else None
    except ValidationError as error:
        raise WeightsError(f"'{path}' has a damaged header: {invalid_value(error)}.") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"'{path}' cannot be read as weights: {reason(error)[:200]}.") from error


def as_fitted(spec: Spec) -> tuple[Spec, tuple[str, ...] | None]:
    """Add the options and classes of a fitted weights file to a teacher's spec.

    The file follows ``@``, or is found in the cache by ``weights=NAME`` of the data set. Options of the user
    take precedence. Other weights files add nothing.

    Raises:
        WeightsError: no such file exists, or it belongs to another teacher.
    """
    spec = _in_cache(spec)
    path = Path(spec.weights).expanduser() if spec.weights else None
    fitted = read_fitted(path) if path and path.is_file() else None
    if fitted is None:
        return spec, None
    # The part after a dot names published weights, which the fitted weights replace.
    if fitted.teacher.partition(".")[0] != spec.label.partition(".")[0]:
        raise WeightsError(
            f"'{path}' was fitted as {fitted.teacher}, not as {spec.label}.",
            f"Use {fitted.teacher}@{spec.weights}.",
        )
    return replace(spec, options=fitted.options | spec.options), fitted.classes


def _in_cache(spec: Spec) -> Spec:
    data = spec.options.get("weights")
    if spec.weights or not isinstance(data, str) or data in ("", "random"):
        return spec
    path = default_path(spec.kind, spec.name, data)
    if not path.is_file():
        raise WeightsError(
            f"{spec.label} was not fitted to '{data}' on this machine: there is no '{path}'.",
            f"Run `ccl teachers fit {spec.label} --data SOURCE` with it, or give a file after '@'.",
        )
    options = {name: value for name, value in spec.options.items() if name != "weights"}
    return replace(spec, weights=str(path), options=options)
