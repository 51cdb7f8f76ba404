"""``ccl plugins``: what is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from ccl_cli import console
from ccl_cli.cli.common import examples, group
from ccl_cli.errors import PluginError

if TYPE_CHECKING:
    from ccl_cli.registry import Plugin

Kind = Literal["teachers", "students", "methods", "datasets", "commands"]

app = group(
    "List what is installed: teachers, students, methods, data sets.",
    "ccl plugins ls",
    "ccl plugins ls methods",
)


@app.command("ls", epilog=examples("ccl plugins ls", "ccl plugins ls students", "ccl plugins ls --load"))
def list_plugins(
    kind: Annotated[Kind | None, typer.Argument(help="Only these.", show_default=False)] = None,
    load: Annotated[bool, typer.Option("--load", help="Import each one to see whether it works.")] = False,
) -> None:
    """List plugins with the package each comes from; nothing is imported unless --load is given."""
    show([kind] if kind else get_args(Kind), load)


def show(kinds: Sequence[Kind], load: bool) -> None:
    """Print the plugins of some groups."""
    from ccl_cli import registry

    found = [(kind, plugin) for kind in kinds for plugin in registry.plugins(f"ccl.{kind}")]
    rows = [(kind[:-1], plugin.label, plugin.origin, _state(plugin, load)) for kind, plugin in found]
    console.print_table(["kind", "name", "package", "state"], rows)


def _state(plugin: Plugin, load: bool) -> str:
    if not load:
        return "installed" if plugin.importable else "module missing"
    from ccl_cli import registry

    try:
        registry.load(plugin)
    except PluginError as error:
        return error.message
    return "loads"
