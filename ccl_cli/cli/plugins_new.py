"""``ccl plugins new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ccl_cli.cli.common import OUTPUT

EXAMPLES = (
    "ccl plugins new teacher image:mine",
    "ccl plugins new method mine --output ~/code/ccl-mine",
    "ccl plugins new dataset films",
)


def new(
    kind: Annotated[
        Literal["teacher", "student", "method", "dataset"],
        typer.Argument(help="What it is to be.", show_default=False),
    ],
    name: Annotated[
        str, typer.Argument(help="What users will type; modality:name of a teacher.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder; default ccl-KIND-NAME.", rich_help_panel=OUTPUT),
    ] = None,
) -> None:
    """Write a package for a plugin of your own: code, entry point and test, with one place to edit."""
    from ccl_cli import scaffold

    made = scaffold.write(kind, name, output.expanduser() if output else None)
    print(f"{made.folder} is a package for the {made.what} {name}.\n\n{made.begin} Then type:\n")
    print("\n".join(f"  {line}" for line in made.commands))
