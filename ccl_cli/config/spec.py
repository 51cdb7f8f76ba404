"""The one grammar for naming a teacher, a student or a data set on the command line.

::

    audio:cnn14                                  modality:name
    audio:cnn14@weights/my.pth?dim=2048          modality:name@weights?option=value
    r2plus1d_18@kinetics.safetensors             name@weights
    folder:/data/my videos?val=0.1               source:location?option=value

Options are read as YAML scalars, so ``?dim=2048`` is a number and ``?pretrained=false`` a boolean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ccl_cli.errors import RecipeError, UsageError

_LONGEST = 100  # letters of a value that is no text
_OPTIONS = re.compile(r"[A-Za-z_][\w.-]*=[^&]*(?:&[A-Za-z_][\w.-]*=[^&]*)*")


@dataclass(frozen=True)
class Spec:
    """One parsed ``kind:name@weights?key=value``.

    Attributes:
        kind: What stands before the first colon (a teacher's modality, a data source's name), or "".
        name: The model's name, or for a data source the location (may be "").
        weights: What stands after ``@``, or None.
        options: The options after ``?``.
    """

    kind: str
    name: str
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``kind:name``, the short form shown in tables and used as a teacher's key."""
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
    # The last '?' that is followed by key=value pairs starts the options: a path may hold a '?' itself.
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
