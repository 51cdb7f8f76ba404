"""``ccl plugins check``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import complete_plugins, data_option, print_result
from ccl_cli.errors import PluginError, UsageError
from ccl_cli.registry import Kind

EXAMPLES = (
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
