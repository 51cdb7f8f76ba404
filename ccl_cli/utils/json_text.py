"""Robust parsing of possibly damaged JSON: every problem is a ValueError."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

# Schema of a value: a type; for an object, a dict of schemas by key ("*" for any key); for a list, a list
# with the schema of its entries.
Shape = Any
_WHOLE = 2**63  # limit of int64


def parse(text: str | bytes) -> Any:
    """Parse JSON; names that are not UTF-8 are kept, which stricter parsers refuse.

    Raises:
        ValueError: the text is not JSON, or too deeply nested.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is too deeply nested") from None


def fitting(value: Any, shape: Mapping[str, Shape]) -> dict[str, Any]:
    """Drop the entries of an object that do not match the schema.

    Keys without a schema may have any value. Numbers must be finite, and integers must fit into 64 bits.
    """
    valid: dict[str, Any] = {}
    for key, each in value.items() if isinstance(value, dict) else ():
        of = shape.get(key, shape.get("*", object))
        if isinstance(of, Mapping):
            valid |= {key: fitting(each, of)} if isinstance(each, dict) else {}
        elif _fits(each, of):
            valid[key] = each
    return valid


def _fits(value: Any, shape: Shape) -> bool:
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(each, shape[0]) for each in value)
    if shape is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if shape is int:
        return type(value) is int and abs(value) < _WHOLE
    return isinstance(value, shape)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested sections to dotted keys."""
    dotted: dict[str, Any] = {}
    for key, value in values.items():
        dotted |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return dotted
