"""``ccl plugins``: packages that extend ccl."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ccl_cli import registry
from ccl_cli.cli import options
from ccl_cli.cli.catalogue.listing import print_plugins
from ccl_cli.cli.common import command, complete_plugins, data_option, group, output_option, print_result
from ccl_cli.errors import PluginError, UsageError
from ccl_cli.registry import Kind

Group = Literal["teachers", "students", "methods", "datasets", "commands", "executors"]

app = group(
    "List, create and check plugins.",
    "ccl plugins ls",
    "ccl plugins ls methods",
    "ccl plugins new teacher image:mine",
    "ccl plugins check image:mine",
)


@command(app, "ls", "ccl plugins ls", "ccl plugins ls students", "ccl plugins ls --load")
def list_plugins(
    kind: Annotated[Group | None, typer.Argument(help="List only this kind.", show_default=False)] = None,
    load: options.Load = False,
    as_json: options.AsJson = False,
) -> None:
    """List plugins with their packages and versions, and the broken ones.

    Plugins are not imported unless --load is given.
    """
    print_plugins([f"ccl.{kind}"] if kind else registry.GROUPS, load, as_json)


@command(
    app,
    "new",
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
    lines = [
        f"Created {package.folder}, a package for the {package.what} {name}.\n\n{package.begin} Then run:\n",
        *(f"  {line}" for line in package.commands),
    ]
    print_result(result, as_json, lambda: print(*lines, sep="\n"))


@command(
    app,
    "check",
    "ccl plugins check image:mine@weights.pth",
    "ccl plugins check 'image:resnet34?weights=random'",
    "ccl plugins check fitnet",
    "ccl plugins check folder:my_videos",
    "ccl plugins check audio:precomputed@table.npz --data folder:my_videos",
)
def check(
    name: Annotated[
        str,
        typer.Argument(
            help="Plugin, as after --teacher, --student, --method or --data.",
            autocompletion=complete_plugins("ccl.teachers"),
            show_default=False,
        ),
    ],
    kind: Annotated[Kind | None, typer.Option(help="Kind of plugin, if the name is ambiguous.")] = None,
    data: Annotated[
        str | None,
        data_option(
            metavar="SOURCE[:PATH]",
            help="Data set to check a teacher on. Default: generated clips.",
            autocompletion=complete_plugins("ccl.datasets"),
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Check that a plugin meets its contract, and print one line per check.

    Exits with code 5 if a check fails.
    """
    from ccl_cli.testing.named import kind_of, verdicts_of

    kind = kind or kind_of(name)
    if data and kind != "teacher":
        raise UsageError(f"--data applies to teachers only, and '{name}' is a {kind}.", "Omit --data.")
    verdicts = []
    for verdict in verdicts_of(kind, name, data):
        verdicts.append(verdict)
        if not as_json:
            print(verdict, flush=True)
    failed = sum(verdict.state == "failed" for verdict in verdicts)
    checks = [asdict(verdict) for verdict in verdicts]
    result = {"kind": kind, "name": name, "ok": not failed, "checks": checks}
    print_result(result, as_json, lambda: None)
    if failed:
        raise PluginError(
            f"{name} fails {failed} of {len(verdicts)} checks.", "Each line says how to fix it."
        )
