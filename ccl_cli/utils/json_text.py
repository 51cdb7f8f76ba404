"""JSON that somebody may have damaged: what is wrong with it is always one kind of error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

# What a value must be: a type; any of several, in a tuple; of an object, what its entries must be by name,
# "*" for all; of a list, what every entry must be, alone in a list, or each of several in its place. An entry
# that may be None may be lacking.
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


def fits(value: Any, shape: Shape) -> bool:
    """Whether a value has a shape; what the shape does not name may be anything.

    A number is finite, and a whole one has at most 64 bits.
    """
    if isinstance(shape, tuple):
        return any(fits(value, each) for each in shape)
    if isinstance(shape, Mapping):
        return isinstance(value, dict) and all(
            fits(each, of)
            for key, of in shape.items()
            for each in (value.values() if key == "*" else [value.get(key)])
        )
    if shape == [int] and isinstance(value, list):  # in fewer steps: a film has many thousand timestamps
        whole = set(map(type, value)) <= {int}
        return whole and max(value, default=0) < _WHOLE and min(value, default=0) > -_WHOLE
    if isinstance(shape, list):
        each_of = shape * len(value) if isinstance(value, list) and len(shape) == 1 else shape
        return isinstance(value, list) and len(value) == len(each_of) and all(map(fits, value, each_of))
    if shape is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if shape is int:
        return type(value) is int and abs(value) < _WHOLE
    return isinstance(value, shape)


def fitting(value: Any, shape: Mapping[str, Shape]) -> dict[str, Any]:
    """An object without those of its entries that do not have the shape named for them."""
    kept: dict[str, Any] = {}
    for key, each in value.items() if isinstance(value, dict) else ():
        of = shape.get(key, shape.get("*", object))
        if isinstance(of, Mapping):
            kept |= {key: fitting(each, of)} if isinstance(each, dict) else {}
        elif fits(each, of):
            kept[key] = each
    return kept
