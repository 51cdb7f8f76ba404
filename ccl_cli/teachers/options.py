"""Validation of teacher options."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError


def read_options(spec: Spec, **defaults: Any) -> dict[str, Any]:
    """Merge the options of a spec with the defaults.

    An option must have the type of its default; integers are converted to floats.

    Raises:
        PluginError: an option is unknown (the closest one is suggested) or has the wrong type.
    """
    for name, value in spec.options.items():
        if name not in defaults:
            raise unknown_option(spec, name, defaults)
        default = defaults[name]
        if type(value) is not type(default) and not (type(default) is float and type(value) is int):
            wanted = {int: "an integer", float: "a number", bool: "true or false", str: "text"}[type(default)]
            raise PluginError(f"{spec.label}: the option '{name}' must be {wanted}, not '{value}'.")
    return defaults | {name: type(defaults[name])(value) for name, value in spec.options.items()}


def unknown_option(spec: Spec, name: str, valid: Iterable[str]) -> PluginError:
    """Create the error for an unknown option."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    suggestion = f"Did you mean '{near[0]}'? " if near else ""
    listed = ", ".join(valid) or "none"
    return PluginError(f"{spec.label} has no option '{name}'.", f"{suggestion}Its options: {listed}.")
