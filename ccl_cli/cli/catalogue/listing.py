"""Output of ``ls`` and ``info`` for plugins of every kind."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ccl_cli.cli.common import print_result
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.registry import Plugin

Describe = Callable[[Any], dict[str, Any]]
_ARGUMENT = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def print_plugins(
    groups: Sequence[str], load: bool, as_json: bool, describe: Describe = lambda target: {}
) -> None:
    """Print the plugins of some groups, followed by the broken ones.

    Args:
        groups: Entry point groups, such as ``ccl.methods``.
        load: Import each plugin.
        as_json: Print one JSON array; broken plugins are logged as warnings.
        describe: Returns further columns for a plugin, from its loaded object.
    """
    from ccl_cli import registry

    problems = () if as_json else registry.problems()
    entries = [_entry(plugin, load, describe) for group in groups for plugin in registry.plugins(group)]
    print_result(entries, as_json, lambda: _print_entries(entries))
    if problems:
        print("\nBroken plugins:")
        print("\n".join(f"  {problem}" for problem in problems))


def print_plugin(plugin: Plugin, as_json: bool, details: Mapping[str, Any] | None = None) -> None:
    """Print one plugin: its package, description, options and defaults.

    Raises:
        PluginError: it cannot be loaded.
    """
    from ccl_cli import registry

    target = registry.load(plugin)
    facts = {"name": plugin.label, "package": plugin.origin, "code": plugin.value, **(details or {})}
    # The options of a function are its arguments: the table shows them, so the text ends before them.
    # `__doc__` instead of `getdoc`, which returns the base class's text for a class without one.
    text, options = _plain(inspect.cleandoc(target.__doc__ or "")), _options(target)
    description = text if inspect.isclass(target) else text.partition("\n\nArgs:\n")[0]
    result = facts | {"description": description, "options": options}
    print_result(result, as_json, lambda: _print_plugin(facts, description, options))


def _print_plugin(facts: Mapping[str, Any], description: str, options: Sequence[Mapping[str, str]]) -> None:
    width = max(map(len, facts))
    for name, fact in facts.items():
        lines = [line for each in fact for line in each.values()] if isinstance(fact, list) else [fact]
        for number, line in enumerate(lines):
            print(f"{'' if number else name:<{width}}  {line}")
    print(f"\n{description}")
    if options:
        print()
        console.print_table(list(options[0]), [list(option.values()) for option in options])


def _print_entries(entries: Sequence[Mapping[str, Any]]) -> None:
    """Print entries as a table, without their options, which do not fit."""
    columns = dict.fromkeys(key for entry in entries for key in entry if key != "options")
    rows = [[_cell(entry.get(column, "")) for column in columns] for entry in entries]
    console.print_table(list(columns), rows)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value}"


def _entry(plugin: Plugin, load: bool, describe: Describe) -> dict[str, Any]:
    from ccl_cli import registry

    state, more = "installed", dict[str, Any]()
    if not plugin.importable:
        state = f"broken: there is no module '{plugin.value.partition(':')[0]}'"
    elif load:
        try:
            state, more = "loads", describe(registry.load(plugin))
        except registry.Broken as error:
            state = f"broken: {error.reason}"
    return {
        "kind": plugin.group.removeprefix("ccl.").removesuffix("s"),
        "name": plugin.label,
        "package": plugin.distribution,
        "version": plugin.version or "-",
        "state": state,
    } | more


def _options(target: Any) -> list[dict[str, str]]:
    """Options of a plugin: the fields of a method's ``Options``, or the keyword arguments of a function."""
    rows: list[tuple[str, Any, str]] = []
    if hasattr(target, "Options"):
        fields = target.Options.model_fields.items()
        rows = [(name, field.default, field.description or "") for name, field in fields]
    elif not inspect.isclass(target):  # a teacher is a class: its `from_spec` defines its options
        section = (inspect.getdoc(target) or "").partition("\nArgs:\n")[2].partition("\n\n")[0]
        meanings = {name: _plain(" ".join(text.split())) for name, text in _ARGUMENT.findall(section)}
        parameters = inspect.signature(target).parameters.values()
        keywords = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
        rows = [(each.name, each.default, meanings.get(each.name, str(each.annotation))) for each in keywords]
    return [
        {
            "option": name,
            "default": "required" if default is inspect.Parameter.empty else f"{default}",
            "meaning": meaning,
        }
        for name, default, meaning in rows
    ]


def _plain(docstring: str) -> str:
    return docstring.replace("``", "`")
