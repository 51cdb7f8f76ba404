"""``ccl card``, ``ccl push`` and ``ccl pull``: a model and its description, for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import OUTPUT, examples, with_verbosity
from ccl_cli.errors import UsageError
from ccl_cli.utils import console

card_app = typer.Typer(add_completion=False)
push_app = typer.Typer(add_completion=False)
pull_app = typer.Typer(add_completion=False)

_Run = Annotated[
    Path | None,
    typer.Argument(metavar="RUN", help="A run's folder or a model file; the newest run if none is named."),
]
_Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hub.")]


@card_app.command(
    "card",
    epilog=examples(
        "ccl card                             newest run: README.md beside its model",
        "ccl card --license apache-2.0 --force",
        "ccl card runs/mine/20260101-120000-1a2b3c4d --output -",
    ),
)
@with_verbosity
def card(
    run: _Run = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Default README.md beside the model; - for stdout.", rich_help_panel=OUTPUT
        ),
    ] = None,
    licence: Annotated[
        str,
        typer.Option("--license", metavar="ID", help="The model's, by the Hub's name: apache-2.0, mit, ..."),
    ] = "unknown",
    force: Annotated[bool, typer.Option("--force", help="Replace a card that is there.")] = False,
) -> None:
    """Write a model's card: data, teachers, figures, limits.

    Figures of a benchmark's run come with the spread over its seeds, teachers with the licence of their
    weights. What nobody recorded is said to be unknown.
    """
    from ccl_cli.deploy.card import CARD
    from ccl_cli.deploy.card import card as describe
    from ccl_cli.utils.files import write_text

    folder, text = describe(run, licence=licence)
    if output == "-":
        print(text, end="")
        return
    path = Path(output) if output else folder / CARD
    if path.exists() and not force:  # it may have been edited by hand
        raise UsageError(f"'{path}' exists.", "Replace it with --force, or name another file with --output.")
    write_text(path, text)
    print(path)


@push_app.command(
    "push",
    epilog=examples(
        "ccl push me/my-student --dry-run",
        "ccl push me/my-student --run runs/mine/20260101-120000-1a2b3c4d --private",
    ),
)
@with_verbosity
def push(
    repository: _Repository,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN|FILE", help="A run's folder or a model file; default the newest run."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is for you alone.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be uploaded.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Upload a model and its card to the Hugging Face Hub.

    All files go in one commit. A card that is there is taken as it is, else one is written.
    """
    from ccl_cli.deploy import hub

    if dry_run:
        files = hub.uploads(run, repository)
        if as_json:
            print(json.dumps([{"name": each.name, "bytes": each.size} for each in files]))
        else:
            console.print_table(["file", "bytes"], [(each.name, f"{each.size:,}") for each in files])
        return
    address = hub.push(run, repository, private=private)
    print(json.dumps({"commit": address}) if as_json else address)


@pull_app.command(
    "pull",
    epilog=examples("ccl pull them/their-student", "ccl pull them/their-student --output their-student"),
)
@with_verbosity
def pull(
    repository: _Repository,
    revision: Annotated[
        str | None, typer.Option(help="A branch, a tag or a commit; default the main branch.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A new folder; default the Hub's own cache.", rich_help_panel=OUTPUT
        ),
    ] = None,
) -> None:
    """Download a model from the Hugging Face Hub, and check it.

    Nothing that is downloaded is run: weights are read from safetensors.
    """
    import logging
    import shlex

    from ccl_cli.deploy import hub

    path = hub.pull(repository, revision=revision, output=output)
    logging.getLogger("ccl").info("Use it: ccl predict my_videos --model %s", shlex.quote(str(path)))
    print(path)
