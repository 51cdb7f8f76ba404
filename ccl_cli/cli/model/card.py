"""``ccl model card``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import output_option, print_path, print_result
from ccl_cli.errors import UsageError

EXAMPLES = (
    "ccl model card                       newest run, README.md beside the model",
    "ccl model card --license apache-2.0 --force",
    "ccl model card runs/mine/20260101-120000-1a2b3c4d --output -",
)


def card(
    run: options.Run = None,
    output: Annotated[
        str | None,
        output_option(
            metavar="FILE", help="File to write, or - for stdout. Default: README.md beside the model."
        ),
    ] = None,
    licence: Annotated[
        str,
        typer.Option(
            "--license", metavar="ID", help="Licence, by its identifier on the Hub: apache-2.0, mit, ..."
        ),
    ] = "unknown",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing card.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a model card with data, teachers, results and limitations.

    Results of a benchmark include the spread over its seeds. Teachers are listed with the licence of their
    weights.
    """
    from ccl_cli.deploy.card import CARD
    from ccl_cli.deploy.card import card as write_card
    from ccl_cli.utils.files import write_text

    folder, text = write_card(run, licence=licence)
    if output == "-":
        print_result({"card": text}, as_json, lambda: print(text, end=""))
        return
    path = Path(output) if output else folder / CARD
    if path.exists() and not force:  # the user may have edited it
        raise UsageError(
            f"'{path}' exists.", "Overwrite it with --force, or choose another file with --output."
        )
    write_text(path, text)
    print_path(path, as_json)
