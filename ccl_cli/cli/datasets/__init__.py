"""``ccl data``: list, show, prepare, check, pack and benchmark data sets."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccl_cli.cli import options
from ccl_cli.cli.catalogue.listing import print_plugin
from ccl_cli.cli.common import command, complete_plugins, group, print_result
from ccl_cli.cli.datasets import bench, check, pack, show
from ccl_cli.errors import PluginError
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.registry import Plugin

_log = logging.getLogger("ccl")

app = group(
    "List, show, prepare, check, pack and benchmark data sets.",
    "ccl data ls",
    "ccl data show folder:my_videos",
    "ccl data prepare ucf51 --videos /data/UCF-101",
    "ccl data check manifest:ucf51.jsonl",
    "ccl data pack ucf51 --output packed",
    "ccl data bench shards:packed",
)


@command(app, "ls", "ccl data ls", "ccl data ls --json")
def list_sources(as_json: options.AsJson = False) -> None:
    """List data sources, how to use them, and where to get published data sets."""
    from ccl_cli import registry

    sources = []
    for plugin in registry.plugins(registry.DATASETS):
        try:
            sources.append(_described(plugin))
        except PluginError as error:
            _log.warning("%s", error.message)
    print_result(sources, as_json, lambda: print("\n\n".join(map(_as_text, sources))))


@command(app, "info", "ccl data info folder", "ccl data info activitynet --json")
def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Data source.",
            autocompletion=complete_plugins("ccl.datasets"),
            show_default=False,
        ),
    ],
    as_json: options.AsJson = False,
) -> None:
    """Describe a data source, its options and their defaults."""
    from ccl_cli import registry

    print_plugin(registry.find(registry.DATASETS, name), as_json)


command(app, "prepare", *check.PREPARE)(check.prepare)
command(app, "check", *check.CHECK)(check.check)
command(app, "pack", *pack.EXAMPLES)(pack.pack)
command(app, "bench", *bench.EXAMPLES)(bench.bench)
command(app, "show", *show.EXAMPLES)(show.show)


def _described(plugin: Plugin) -> dict[str, Any]:
    """One data source as JSON-serialisable values."""
    from ccl_cli import registry
    from ccl_cli.data.sources.about import about

    text = about(registry.load(plugin))
    source = {"name": plugin.label, "package": plugin.origin, "about": text.text, "example": text.example}
    if text.published is None:
        return source
    file, home = text.published.list_file, text.published.home
    return source | {
        "list": {"title": file.title, "url": file.url, "place": str(home / file.name)},
        "videos": text.published.advice.format(folder=shlex.quote(str(home))),
    }


def _as_text(source: dict[str, Any]) -> str:
    lines = [console.bold(source["name"]), source["about"], f"package     {source['package']}"]
    if source["example"]:
        lines.append(f"type        --data {shlex.quote(source['example'])}")
    if "list" in source:
        file = source["list"]
        lines.append(f"{file['title']:<12}{file['url']} goes to {file['place']}")
        lines.append(f"videos      {source['videos']}")
        lines.append(f"then        ccl data prepare {source['name']} --videos DIR")
    return "\n  ".join(lines)
