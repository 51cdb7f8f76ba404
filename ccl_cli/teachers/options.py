"""The options of a teacher's spec, checked against what the teacher knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError


def read_options(spec: Spec, **defaults: Any) -> dict[str, Any]:
    """The spec's options over their defaults.

    A default's type is the type its option must have; whole numbers pass for a float.

    Raises:
        PluginError: an unknown option (the nearest one is suggested) or a value of another type.
    """
    for name, value in spec.options.items():
        if name not in defaults:
            raise unknown_option(spec, name, defaults)
        default = defaults[name]
        if type(value) is not type(default) and not (type(default) is float and type(value) is int):
            wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[
                type(default)
            ]
            raise PluginError(f"{spec.label}: the option '{name}' must be {wanted}, not '{value}'.")
    return defaults | spec.options


def unknown_option(spec: Spec, name: str, valid: Iterable[str]) -> PluginError:
    """The error for an option that a teacher does not have."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    suggestion = f"Did you mean '{near[0]}'? " if near else ""
    listed = ", ".join(valid) or "none"
    return PluginError(f"{spec.label} has no option '{name}'.", f"{suggestion}Its options: {listed}.")
