"""Checks of installed plugins by name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import get_args

from ccl_cli import registry
from ccl_cli.config.spec import parse_data, parse_model
from ccl_cli.data.manifest import ABSENT
from ccl_cli.data.sources import load_data
from ccl_cli.errors import CclError, DataError, PluginError, UsageError
from ccl_cli.registry import Kind
from ccl_cli.testing.verdicts import Verdict

_VIDEOS = 4  # videos of a data set on which a teacher is checked


def kind_of(name: str) -> Kind:
    """Return the kind of the plugin with this name.

    Raises:
        PluginError: no plugin has this name.
        UsageError: plugins of several kinds have this name.
    """
    kinds = [kind for kind in get_args(Kind) if _is_installed(kind, name)]
    if len(kinds) > 1:
        raise UsageError(f"'{name}' is a {' and a '.join(kinds)}.", "Choose one with --kind.")
    if not kinds:
        raise PluginError(f"No plugin is named '{name}'.", "`ccl plugins ls` lists them.")
    only: Kind = kinds[0]
    return only


def verdicts_of(kind: Kind, name: str, data: str | None = None) -> Iterator[Verdict]:
    """Check a plugin, named as after ``--teacher``, ``--student``, ``--method`` or ``--data``.

    Args:
        kind: Kind of plugin.
        name: Plugin.
        data: Data set to check a teacher on. Default: generated clips.

    Raises:
        DataError: none of the videos is on this machine.
    """
    more = []
    if data:
        manifest = load_data(data, need=())
        more = [manifest.videos.where(manifest.sizes != ABSENT)[:_VIDEOS]]
        if not more[0]:
            raise DataError(
                f"None of the videos of '{manifest.name}' is on this machine.", "Use another data set."
            )
    verdicts: Iterator[Verdict] = import_module(f"ccl_cli.testing.{kind}").verdicts(name, *more)
    return verdicts


def _is_installed(kind: Kind, name: str) -> bool:
    try:
        if kind in ("teacher", "student"):
            name = parse_model(name).label
        elif kind == "dataset":
            name = parse_data(name).kind
        registry.find(f"ccl.{kind}s", name)
    except CclError:
        return False
    return True
