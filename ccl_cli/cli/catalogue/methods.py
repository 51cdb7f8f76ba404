"""``ccl methods``."""

from __future__ import annotations

from typing import Annotated, Any

from ccl_cli import registry
from ccl_cli.cli import options
from ccl_cli.cli.catalogue.listing import print_plugin, print_plugins
from ccl_cli.cli.common import command, group, plugin_argument

app = group("List and describe distillation methods.", "ccl methods ls", "ccl methods info ccl")


@command(app, "ls", "ccl methods ls", "ccl methods ls --json")
def list_methods(as_json: options.AsJson = False) -> None:
    """List distillation methods and their papers.

    With --json, the output includes their options.
    """
    print_plugins([registry.METHODS], True, as_json, _paper)


@command(app, "info", "ccl methods info ccl", "ccl methods info crd --json")
def info(
    name: Annotated[str, plugin_argument(registry.METHODS, "Method.")], as_json: options.AsJson = False
) -> None:
    """Describe a method: loss, paper, options and defaults."""
    print_plugin(registry.find(registry.METHODS, name), as_json)


def _paper(method: Any) -> dict[str, Any]:
    fields = method.Options.model_fields.items()
    described = {name: field.description or "" for name, field in fields}
    return {"paper": getattr(method, "paper", ""), "options": described}
