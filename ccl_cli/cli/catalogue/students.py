"""``ccl students``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from ccl_cli import registry
from ccl_cli.cli import options
from ccl_cli.cli.catalogue.listing import print_plugin, print_plugins
from ccl_cli.cli.common import command, group, plugin_argument

app = group(
    "List and describe student networks.",
    "ccl students ls",
    "ccl students ls --load",
    "ccl students info x3d_s",
)
_LOAD = (
    "Also show the number of parameters (with 400 classes) and the GMACs per clip. Takes a few seconds each."
)


@command(app, "ls", "ccl students ls", "ccl students ls --load", "ccl students ls --json")
def list_students(
    load: Annotated[bool, typer.Option("--load", help=_LOAD)] = False, as_json: options.AsJson = False
) -> None:
    """List students and their packages; with --load also their size."""
    print_plugins([registry.STUDENTS], load, as_json, _size)


@command(app, "info", "ccl students info x3d_s", "ccl students info timm:resnet50 --json")
def info(
    name: Annotated[str, plugin_argument(registry.STUDENTS, "Student.")], as_json: options.AsJson = False
) -> None:
    """Describe a student: network, size, options and defaults."""
    from ccl_cli.config.spec import parse_model

    spec = parse_model(name)
    plugin = registry.find(registry.STUDENTS, spec.label)
    model = {"model": spec.name} if spec.kind else {}
    factory = partial(registry.load(plugin), **model, **spec.options)
    print_plugin(plugin, as_json, {"name": str(spec), **_size(factory)})


def _size(factory: Any) -> dict[str, Any]:
    from ccl_cli.students.size import size

    return size(factory)
