"""Syntax of teachers, students and data sets on the command line.

::

    audio:cnn14                                  modality:name
    audio:cnn14@weights/my.pth?dim=2048          modality:name@weights?option=value
    r2plus1d_18@kinetics.safetensors             name@weights
    folder:/data/my videos?val=0.1               source:location?option=value

Option values are parsed as YAML scalars: ``?dim=2048`` is a number and ``?pretrained=false`` a boolean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ccl_cli.errors import RecipeError, UsageError

_LONGEST = 100  # characters of a value that is not a string
_OPTIONS = re.compile(r"[A-Za-z_][\w.-]*=[^&]*(?:&[A-Za-z_][\w.-]*=[^&]*)*")


@dataclass(frozen=True)
class Spec:
    """A parsed ``kind:name@weights?key=value``.

    Attributes:
        kind: Text before the first colon (a teacher's modality or the name of a data source), or "".
        name: Name of the model, or location of the data set (may be "").
        weights: Text after ``@``, or None.
        options: Options after ``?``.
    """

    kind: str
    name: str
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Short form ``kind:name``, shown in tables and used as the key of a teacher."""
        return f"{self.kind}:{self.name}" if self.kind and self.name else self.kind or self.name

    def __str__(self) -> str:
        weights = f"@{self.weights}" if self.weights else ""
        options = "&".join(f"{key}={_scalar_text(value)}" for key, value in self.options.items())
        return f"{self.label}{weights}{'?' + options if options else ''}"


def parse_model(text: str) -> Spec:
    """Parse a teacher or a student: ``[modality:]name[@weights][?key=value&...]``."""
    body, options = _split_options(text)
    head, _, weights = body.partition("@")
    kind, colon, name = head.partition(":")
    if not colon:
        kind, name = "", head
    if not name or (colon and not kind) or ("@" in body and not weights):
        raise UsageError(
            f"'{text}' is not a model: write modality:name@weights?key=value.", "For example audio:cnn14."
        )
    return Spec(kind, name, weights or None, options)


def parse_data(text: str) -> Spec:
    """Parse a data set: ``source[:location][?key=value&...]``."""
    body, options = _split_options(text)
    kind, _, location = body.partition(":")
    if not kind:
        raise UsageError(
            f"'{text}' is not a data set: write source:location?key=value.", "For example folder:my_videos."
        )
    return Spec(kind, location, None, options)


def _split_options(text: str) -> tuple[str, dict[str, Any]]:
    # A path may contain '?', so options start at the last '?' that is followed by key=value pairs.
    body, mark, tail = text.strip().rpartition("?")
    if not mark:
        return text.strip(), {}
    if not _OPTIONS.fullmatch(tail):
        raise UsageError(f"'{tail}' in '{text}' is not key=value&key=value.", "Write options after '?'.")
    return body, {key: _scalar(value) for key, _, value in (pair.partition("=") for pair in tail.split("&"))}


def _scalar(text: str) -> Any:
    from ccl_cli.config import yaml_text

    if len(text) > _LONGEST:
        return text
    try:
        value = yaml_text.parse(text, "")
    except RecipeError:
        return text
    return value if isinstance(value, bool | int | float) or value is None else text


def _scalar_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return re.sub("inf|nan", r".\g<0>", str(value))
    return str(value).lower() if isinstance(value, bool) else str(value)
