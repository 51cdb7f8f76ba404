"""``ccl doctor``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import examples, with_verbosity
from ccl_cli.errors import EnvironmentError_
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.doctor import Finding

app = typer.Typer(add_completion=False)

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


@app.command(epilog=examples("ccl doctor", "ccl doctor --json > doctor.json        for a bug report"))
@with_verbosity
def doctor(as_json: options.AsJson = False) -> None:
    """Tell what this machine and its installation can do.

    The exit code is 6 if something failed.
    """
    from ccl_cli.doctor import examine

    findings = list(examine())
    if as_json:
        print(json.dumps([asdict(each) for each in findings]))
    else:
        _show(findings)
    failed = sum(each.state == "failed" for each in findings)
    if failed:
        raise EnvironmentError_(f"{failed} of {len(findings)} checks failed.", "What to do stands with each.")


def _show(findings: Sequence[Finding]) -> None:
    """A line each, and below it what to do; on a terminal long ones are wrapped within their column."""
    if console.plain(sys.stdout):
        rows = [(each.state, each.part, each.found, each.advice) for each in findings]
        console.print_table(["state", "part", "found", "what to do"], rows)
        return
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for each in findings:
        finding = Group(Text(each.found), *([Text(each.advice, "dim")] if each.advice else []))
        table.add_row(Text(each.state, _STYLES[each.state]), Text(each.part, "cyan"), finding)
    Console().print(table)
