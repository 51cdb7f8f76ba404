"""``ccl plugins check``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import DATA, complete_plugins
from ccl_cli.errors import CclError, PluginError, UsageError

if TYPE_CHECKING:
    from ccl_cli.data.manifest import Video
    from ccl_cli.testing import Verdict

Kind = Literal["teacher", "student", "method", "dataset"]
_VIDEOS = 4  # to try a teacher on, of a data set that is named

EXAMPLES = (
    "ccl plugins check image:mine@weights.pth",
    "ccl plugins check 'image:resnet34?weights=random'",
    "ccl plugins check fitnet",
    "ccl plugins check folder:my_videos",
    "ccl plugins check audio:precomputed@table.npz --data folder:my_videos",
)


def check(
    name: Annotated[
        str,
        typer.Argument(
            help="What you would type after --teacher, --student, --method or --data.",
            autocompletion=complete_plugins("ccl.teachers"),
            show_default=False,
        ),
    ],
    kind: Annotated[
        Kind | None, typer.Option(help="Which it is, where the name alone does not tell.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE[:PATH]",
            help="Videos to try a teacher on; default clips made for the purpose.",
            rich_help_panel=DATA,
            autocompletion=complete_plugins("ccl.datasets"),
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Try a plugin: every part of its contract, with one line each. Exit code 5 if one fails."""
    kind = kind or _kind(name)
    if data and kind != "teacher":
        raise UsageError(f"A {kind} is not tried on videos.", "Leave out --data.")
    verdicts = []
    for verdict in _verdicts(kind, name, data):
        verdicts.append(verdict)
        if not as_json:
            print(verdict, flush=True)
    failed = sum(verdict.state == "failed" for verdict in verdicts)
    if as_json:
        checks = [asdict(verdict) for verdict in verdicts]
        print(json.dumps({"kind": kind, "name": name, "ok": not failed, "checks": checks}))
    if failed:
        raise PluginError(
            f"{name} fails {failed} of {len(verdicts)} checks.", "Each line says how to fix it."
        )


def _kind(name: str) -> Kind:
    """The only kind of plugin that has this name."""
    from ccl_cli import registry
    from ccl_cli.config.spec import parse_data, parse_model

    typed = {
        "teacher": lambda: parse_model(name).label,
        "student": lambda: parse_model(name).label,
        "method": lambda: name,
        "dataset": lambda: parse_data(name).kind,
    }
    found: list[Kind] = []
    for kind in get_args(Kind):
        try:
            registry.find(f"ccl.{kind}s", typed[kind]())
            found.append(kind)
        except CclError:
            continue
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"'{name}' is a {' and a '.join(found)}.", "Say which one with --kind.")
    raise PluginError(f"No plugin is named '{name}'.", "`ccl plugins ls` lists them.")


def _verdicts(kind: Kind, name: str, data: str | None) -> Iterator[Verdict]:
    from importlib import import_module

    videos = [_some_videos(data)] if data else []
    verdicts: Iterator[Verdict] = import_module(f"ccl_cli.testing.{kind}").verdicts(name, *videos)
    return verdicts


def _some_videos(data: str) -> tuple[Video, ...]:
    from ccl_cli.data.sources import load_data
    from ccl_cli.errors import DataError

    manifest = load_data(data, need=())
    rows = zip(manifest.videos, manifest.sizes, strict=True)
    there = tuple(video for video, size in rows if size is not None)[:_VIDEOS]
    if not there:
        raise DataError(f"None of the videos of '{manifest.name}' is on this machine.", "Name other ones.")
    return there
