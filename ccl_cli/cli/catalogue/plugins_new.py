"""``ccl plugins new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import output_option, print_result
from ccl_cli.registry import Kind
from ccl_cli.scaffold import Scaffold

EXAMPLES = (
    "ccl plugins new teacher image:mine",
    "ccl plugins new method mine --output ~/code/ccl-mine",
    "ccl plugins new dataset films",
)


def new(
    kind: Annotated[Kind, typer.Argument(help="Kind of plugin.", show_default=False)],
    name: Annotated[
        str, typer.Argument(help="Name of the plugin; modality:name for a teacher.", show_default=False)
    ],
    output: Annotated[
        Path | None, output_option(metavar="DIR", help="Output folder. Default: ccl-KIND-NAME.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Create a package for a new plugin, with code, entry point and test."""
    from ccl_cli import scaffold

    package = scaffold.write(kind, name, output.expanduser() if output else None)
    result = {"path": str(package.folder), "begin": package.begin, "commands": package.commands}
    print_result(result, as_json, lambda: _print(package, name))


def _print(package: Scaffold, name: str) -> None:
    print(
        f"Created {package.folder}, a package for the {package.what} {name}.\n\n{package.begin} Then run:\n"
    )
    print("\n".join(f"  {line}" for line in package.commands))
