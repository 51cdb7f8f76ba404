"""``ccl doctor``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, print_result
from ccl_cli.errors import EnvironmentError_
from ccl_cli.utils import console

app = typer.Typer(add_completion=False)


@command(app, "doctor", "ccl doctor", "ccl doctor --json > doctor.json        for a bug report")
def doctor(as_json: options.AsJson = False) -> None:
    """Tell what this machine and its installation can do.

    The exit code is 6 if something failed.
    """
    from ccl_cli.doctor import run_checks

    results = list(run_checks())
    rows = [(each.state, each.name, each.detail, each.advice) for each in results]
    columns = ["state", "check", "result", "what to do"]
    print_result([asdict(each) for each in results], as_json, lambda: console.print_table(columns, rows))
    failed = sum(each.state == "failed" for each in results)
    if failed:
        raise EnvironmentError_(f"{failed} of {len(results)} checks failed.", "What to do stands with each.")
