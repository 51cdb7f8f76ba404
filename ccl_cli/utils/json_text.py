"""JSON that somebody may have damaged: what is wrong with it is always one kind of error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

# What a value must be: a type; of an object, what its entries must be by name, "*" for all; of a list, what
# every entry must be, alone in a list.
Shape = Any
_WHOLE = 2**63  # what an array of numbers takes


def parse(text: str | bytes) -> Any:
    """The value; a name that is no UTF-8 stays what Python made of it, which stricter parsers refuse.

    Raises:
        ValueError: not JSON, or nested too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def fitting(value: Any, shape: Mapping[str, Shape]) -> dict[str, Any]:
    """An object without those of its entries that do not have the shape named for them.

    What the shape does not name may be anything. A number is finite, and a whole one has at most 64 bits.
    """
    kept: dict[str, Any] = {}
    for key, each in value.items() if isinstance(value, dict) else ():
        of = shape.get(key, shape.get("*", object))
        if isinstance(of, Mapping):
            kept |= {key: fitting(each, of)} if isinstance(each, dict) else {}
        elif _fits(each, of):
            kept[key] = each
    return kept


def _fits(value: Any, shape: Shape) -> bool:
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(each, shape[0]) for each in value)
    if shape is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if shape is int:
        return type(value) is int and abs(value) < _WHOLE
    return isinstance(value, shape)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    dotted: dict[str, Any] = {}
    for key, value in values.items():
        dotted |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return dotted
