"""``ccl data info``."""

from __future__ import annotations

from typing import Annotated

import typer

from ccl_cli import registry
from ccl_cli.cli import options
from ccl_cli.cli.catalogue.listing import print_plugin
from ccl_cli.cli.common import complete_plugins

EXAMPLES = ("ccl data info folder", "ccl data info activitynet --json")


def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Data source.",
            autocompletion=complete_plugins(registry.DATASETS),
            show_default=False,
        ),
    ],
    as_json: options.AsJson = False,
) -> None:
    """Describe a data source, its options and their defaults."""
    print_plugin(registry.find(registry.DATASETS, name), as_json)
