"""``ccl plugins``: what is installed, its options, whether it keeps its contract, and one of your own."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from ccl_cli.cli import options, plugins_check, plugins_new
from ccl_cli.cli.common import examples, group, with_verbosity
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.registry import Plugin

Kind = Literal["teachers", "students", "methods", "datasets", "commands"]
COLUMNS = ("kind", "name", "package", "version", "state")

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
    as_json: options.AsJson = False,
) -> None:
    """List plugins, the package and version each comes from, and what is broken.

    Nothing is imported unless --load is given.
    """
    show([kind] if kind else get_args(Kind), load, as_json=as_json)


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
    if rows := _options(target):
        console.print_table(["option", "default", "meaning"], rows)


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


def show(
    kinds: Sequence[Kind],
    load: bool,
    *,
    as_json: bool = False,
    describe: Callable[[Any], dict[str, Any]] = lambda target: {},
) -> None:
    """Print the plugins of some groups, and what was left out of the list.

    Args:
        kinds: Groups.
        load: Import each one.
        as_json: One JSON array; what was left out is then a warning.
        describe: More columns for a plugin that loads, from the object that its entry point names.
    """
    from ccl_cli import registry

    left_out = () if as_json else registry.problems()
    entries = [
        _entry(kind, plugin, load, describe) for kind in kinds for plugin in registry.plugins(f"ccl.{kind}")
    ]
    if as_json:
        print(json.dumps(entries))
        return
    columns = dict.fromkeys(column for entry in entries for column, value in entry.items() if _short(value))
    console.print_table(
        list(columns), [[_cell(entry.get(column, "")) for column in columns] for entry in entries]
    )
    if left_out:
        print("\nBroken, and not in the list:")
        print("\n".join(f"  {problem}" for problem in left_out))


def _entry(
    kind: Kind, plugin: Plugin, load: bool, describe: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    from ccl_cli import registry

    state, more = "installed", {}
    if not plugin.importable:
        state = f"broken: there is no module '{plugin.value.partition(':')[0]}'"
    elif load:
        try:
            state, more = "loads", describe(registry.load(plugin))
        except registry.Broken as error:
            state = f"broken: {error.reason}"
    values = (kind[:-1], plugin.label, plugin.distribution, plugin.version or "-", state)
    return dict(zip(COLUMNS, values, strict=True)) | more


def _short(value: Any) -> bool:
    """Whether a value fits a table; options are for ``--json`` and ``ccl plugins info``."""
    return not isinstance(value, dict)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value}"
