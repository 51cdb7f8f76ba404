"""Reference pages generated from the program: commands with their options, and keys of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ccl_cli.cli import app
from ccl_cli.config.recipe import Recipe


def commands() -> str:
    """Return the help of all commands as Markdown."""
    lines = [
        "# The command line",
        "",
        "The help of all commands, as shown by `ccl COMMAND --help`. `-q`, `-v` and `--debug` may precede"
        " the command. With `--json`, stdout contains exactly one JSON document. A run is specified by its"
        " folder or its model file; the default is the newest run with a model.",
    ]
    for name in app.OWN:
        lines += _command(app._real(name), f"ccl {name}", "##")
    return "\n".join(lines) + "\n"


def keys() -> str:
    """Return the keys of a recipe and their defaults as Markdown."""
    lines = [
        "# The keys of a recipe",
        "",
        "`ccl recipes show NAME` prints the values of a recipe. `ccl methods info NAME` lists the options of"
        " a method.",
        *_section(Recipe, ""),
    ]
    return "\n".join(lines) + "\n"


def _command(command: Any, path: str, level: str) -> Iterator[str]:
    context = command.make_context(path, [], resilient_parsing=True)
    subcommands = getattr(command, "commands", {})
    yield from ("", f"{level} {path}", "", command.help or "", "")
    if not subcommands:
        records = [record for each in command.params if (record := each.get_help_record(context))]
        yield from (
            "| | |",
            "|---|---|",
            *(f"| {_code(name)} | {_text(says)} |" for name, says in records),
            "",
        )
    if not subcommands and command.epilog:
        yield from ("```text", *(line.strip() for line in command.epilog.splitlines()[1:]), "```")
    for name, each in subcommands.items():
        yield from _command(each, f"{path} {name}", level + "#")


def _section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    sections = {}
    yield from ("", f"## {prefix or 'An experiment'}", "", (model.__doc__ or "").partition("\n\n")[0], "")
    yield from ("| key | default | |", "|---|---|---|")
    for name, field in model.model_fields.items():
        inner = field.annotation
        optional = [each for each in getattr(inner, "__args__", ()) if _is_model(each)]
        if _is_model(inner) or optional:
            sections[name] = optional[0] if optional else inner
        else:
            yield f"| `{name}` | {_default(field)} | {_text(field.description or '')} |"
    for name, inner in sections.items():
        yield from _section(inner, f"{prefix}.{name}" if prefix else name)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _default(field: Any) -> str:
    default = field.default
    if default is PydanticUndefined:
        return "required"
    if default is None or default in ("", ()):
        return ""
    shown = list(default) if isinstance(default, tuple) else default
    return _code(str(shown).lower() if isinstance(shown, bool) else str(shown))


def _code(text: str) -> str:
    return f"`{text}`"  # bars in code need no escape


def _text(text: str) -> str:
    """Escape bars, which end table cells, and angle brackets, which start tags."""
    return re.sub(r"\s+", " ", text).replace("|", r"\|").replace("<", "&lt;")
