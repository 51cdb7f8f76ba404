"""``ccl model push`` and ``ccl model pull``."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import output_option, print_path, print_result
from ccl_cli.utils import console

PUSH = (
    "ccl model push me/my-student --dry-run",
    "ccl model push me/my-student runs/mine/20260101-120000-1a2b3c4d --private",
)
PULL = ("ccl model pull them/their-student", "ccl model pull them/their-student --output their-student")
Repository = Annotated[
    str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub.", show_default=False)
]


def push(
    repository: Repository,
    run: options.Run = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files, and upload nothing.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Upload a model and its model card to the Hugging Face Hub.

    All files are uploaded in one commit. An existing card is used; otherwise a new one is written.
    """
    from ccl_cli.deploy import hub

    if dry_run:
        sizes = {
            name: content.stat().st_size if isinstance(content, Path) else len(content)
            for name, content in hub.uploads(run, repository).items()
        }
        rows = [(name, f"{size:,}") for name, size in sizes.items()]
        result = [{"name": name, "bytes": size} for name, size in sizes.items()]
        print_result(result, as_json, lambda: console.print_table(["file", "bytes"], rows))
        return
    address = hub.push(run, repository, private=private)
    print_result({"commit": address}, as_json, lambda: print(address))


def pull(
    repository: Repository,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit. Default: the main branch.")
    ] = None,
    output: Annotated[
        Path | None,
        output_option(
            metavar="DIR", help="New folder for the model. Default: the cache of the Hub's client."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Download a model from the Hugging Face Hub.

    Downloaded code is never executed; weights are read from safetensors.
    """
    from ccl_cli.deploy import hub

    path = hub.pull(repository, revision=revision, output=output)
    logging.getLogger("ccl").info("Use it: ccl predict %s my_videos", shlex.quote(str(path)))
    print_path(path, as_json)
