"""Packages of ccl's extras, which may not be installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ccl_cli.errors import SystemSetupError


def import_extra(extra: str, use: str, otherwise: str, *modules: str) -> Any:
    """Import modules of an extra, and return the first.

    Args:
        extra: Name of the extra.
        use: What needs it, the start of a sentence.
        otherwise: What the user can do without it.
        modules: Names of the modules.

    Raises:
        SystemSetupError: one of them is not installed.
    """
    try:
        first, *_ = [import_module(name) for name in modules]
        return first
    except ImportError as error:
        raise SystemSetupError(
            f"{use} needs the package '{error.name}', which is not installed.",
            f"Run `pip install 'ccl-cli[{extra}]'`, or {otherwise}.",
        ) from error
