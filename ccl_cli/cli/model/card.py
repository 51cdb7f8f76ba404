"""``ccl model card``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import output_option, print_path, print_result
from ccl_cli.errors import UsageError

EXAMPLES = (
    "ccl model card                       newest run: README.md beside its model",
    "ccl model card --license apache-2.0 --force",
    "ccl model card runs/mine/20260101-120000-1a2b3c4d --output -",
)


def card(
    run: options.Run = None,
    output: Annotated[
        str | None, output_option(metavar="FILE", help="Default README.md beside the model; - for stdout.")
    ] = None,
    licence: Annotated[
        str,
        typer.Option("--license", metavar="ID", help="The model's, by the Hub's name: apache-2.0, mit, ..."),
    ] = "unknown",
    force: Annotated[bool, typer.Option("--force", help="Replace a card that is there.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a model's card: data, teachers, figures, limits.

    Figures of a benchmark's run come with the spread over its seeds, teachers with the licence of their
    weights. What nobody recorded is said to be unknown.
    """
    from ccl_cli.deploy.card import CARD
    from ccl_cli.deploy.card import card as write_card
    from ccl_cli.utils.files import write_text

    folder, text = write_card(run, licence=licence)
    if output == "-":
        print_result({"card": text}, as_json, lambda: print(text, end=""))
        return
    path = Path(output) if output else folder / CARD
    if path.exists() and not force:  # it may have been edited by hand
        raise UsageError(f"'{path}' exists.", "Replace it with --force, or name another file with --output.")
    write_text(path, text)
    print_path(path, as_json)
