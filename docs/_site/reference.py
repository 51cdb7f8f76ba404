"""Two pages that the program writes about itself: every command with its options, every key of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ccl_cli.cli import app
from ccl_cli.config.recipe import Recipe


def commands() -> str:
    """The command line: what ``--help`` shows of each command, as Markdown."""
    lines = [
        "# The command line",
        "",
        "What `ccl COMMAND --help` shows, of all commands. `-q`, `-v` and `--debug` may also stand before the"
        " command. With `--json`, stdout holds one JSON document and nothing else. A run is named by its"
        " folder or its model file; where none is named, it is the newest run that has a model.",
    ]
    for name in app.OWN:
        lines += _command(app._real(name), f"ccl {name}", "##")
    return "\n".join(lines) + "\n"


def keys() -> str:
    """The keys of a recipe, with their defaults, as Markdown."""
    lines = [
        "# The keys of a recipe",
        "",
        "`ccl recipes show NAME` prints them with a recipe's own values. Options of methods are listed by"
        " `ccl methods info NAME`.",
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
    return f"`{text}`"  # a bar within it does not end the cell


def _text(text: str) -> str:
    """Table cells end at a bar, and angle brackets would be tags."""
    return re.sub(r"\s+", " ", text).replace("|", r"\|").replace("<", "&lt;")
