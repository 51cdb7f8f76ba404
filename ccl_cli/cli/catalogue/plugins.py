"""``ccl plugins``: packages that extend ccl."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ccl_cli import registry
from ccl_cli.cli import options
from ccl_cli.cli.catalogue import plugins_check, plugins_new
from ccl_cli.cli.catalogue.listing import print_plugins
from ccl_cli.cli.common import command, group

Group = Literal["teachers", "students", "methods", "datasets", "commands", "executors"]

app = group(
    "List, create and check plugins.",
    "ccl plugins ls",
    "ccl plugins ls methods",
    "ccl plugins new teacher image:mine",
    "ccl plugins check image:mine",
)
command(app, "new", *plugins_new.EXAMPLES)(plugins_new.new)
command(app, "check", *plugins_check.EXAMPLES)(plugins_check.check)


@command(app, "ls", "ccl plugins ls", "ccl plugins ls students", "ccl plugins ls --load")
def list_plugins(
    kind: Annotated[Group | None, typer.Argument(help="List only this kind.", show_default=False)] = None,
    load: options.Load = False,
    as_json: options.AsJson = False,
) -> None:
    """List plugins with their packages and versions, and the broken ones.

    Plugins are not imported unless --load is given.
    """
    print_plugins([f"ccl.{kind}"] if kind else registry.GROUPS, load, as_json)
