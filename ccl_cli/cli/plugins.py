"""``ccl plugins``: what is installed, its options, whether it keeps its contract, and one of your own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from ccl_cli.cli import plugins_check, plugins_new
from ccl_cli.cli.common import examples, group, with_verbosity
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.registry import Plugin

Kind = Literal["teachers", "students", "methods", "datasets", "commands"]

app = group(
    "List, describe, write and check plugins.",
    "ccl plugins ls",
    "ccl plugins ls methods",
    "ccl plugins info methods ccl",
    "ccl plugins new teacher image:mine",
    "ccl plugins check image:mine",
)


@app.command("ls", epilog=examples("ccl plugins ls", "ccl plugins ls students", "ccl plugins ls --load"))
def list_plugins(
    kind: Annotated[Kind | None, typer.Argument(help="Only these.", show_default=False)] = None,
    load: Annotated[bool, typer.Option("--load", help="Import each one to see whether it works.")] = False,
) -> None:
    """List plugins, the package and version each comes from, and what is broken.

    Nothing is imported unless --load is given.
    """
    show([kind] if kind else get_args(Kind), load)


@app.command("info", epilog=examples("ccl plugins info methods ccl", "ccl plugins info datasets folder"))
def info(
    kind: Annotated[Kind, typer.Argument(help="Which kind of plugin.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
) -> None:
    """Describe a plugin and its options, with their defaults."""
    from ccl_cli import registry

    plugin = registry.find(f"ccl.{kind}", name)
    target = registry.load(plugin)
    print(f"{plugin.label}, {plugin.origin}, {plugin.value}\n\n{inspect.getdoc(target) or ''}\n")
    if options := _options(target):
        console.print_table(["option", "default", "meaning"], options)


app.command("new", epilog=examples(*plugins_new.EXAMPLES))(plugins_new.new)
app.command("check", epilog=examples(*plugins_check.EXAMPLES))(with_verbosity(plugins_check.check))


def _options(target: Any) -> list[tuple[str, str, str]]:
    """Of a method: the fields of its options; of anything else: its keyword arguments."""
    if hasattr(target, "Options"):
        fields = target.Options.model_fields.items()
        return [(name, _text(field.default), field.description or "") for name, field in fields]
    parameters = inspect.signature(target).parameters.values()
    keywords = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
    return [(each.name, _text(each.default), str(each.annotation)) for each in keywords]


def _text(default: Any) -> str:
    return "required" if default is inspect.Parameter.empty else f"{default}"


def show(kinds: Sequence[Kind], load: bool) -> None:
    """Print the plugins of some groups, and what was left out of the list."""
    from ccl_cli import registry

    left_out = registry.problems()
    found = [(kind, plugin) for kind in kinds for plugin in registry.plugins(f"ccl.{kind}")]
    rows = [
        (kind[:-1], plugin.label, plugin.distribution, plugin.version or "-", _state(plugin, load))
        for kind, plugin in found
    ]
    console.print_table(["kind", "name", "package", "version", "state"], rows)
    if left_out:
        print("\nBroken, and not in the list:")
        print("\n".join(f"  {problem}" for problem in left_out))


def _state(plugin: Plugin, load: bool) -> str:
    from ccl_cli import registry

    if not plugin.importable:
        return f"broken: there is no module '{plugin.value.partition(':')[0]}'"
    if not load:
        return "installed"
    try:
        registry.load(plugin)
    except registry.Broken as error:
        return f"broken: {error.reason}"
    return "loads"
