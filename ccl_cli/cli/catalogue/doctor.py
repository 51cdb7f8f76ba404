"""``ccl doctor``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, print_result
from ccl_cli.errors import SystemSetupError
from ccl_cli.utils import console

app = typer.Typer(add_completion=False)
_NEXT = (
    ("ccl demo", "measure the gain in five minutes"),
    ("ccl data check folder:my_videos", "check that your videos can be decoded"),
    ("ccl train --recipe ucf51 --dry-run", "check what the paper's experiment needs"),
)


@command(app, "doctor", "ccl doctor", "ccl doctor --json > doctor.json        for a bug report")
def doctor(as_json: options.AsJson = False) -> None:
    """Check the installation and the hardware.

    Exits with code 6 if a check fails.
    """
    from ccl_cli.doctor import run_checks

    results = list(run_checks())
    rows = [(each.state, each.name, ". ".join(filter(None, (each.detail, each.advice)))) for each in results]
    columns = ["state", "check", "result"]

    failed = sum(each.state == "failed" for each in results)

    def show() -> None:
        console.print_table(columns, rows)
        if not failed:
            print("\nNext:", *(f"  {typed:<36} {purpose}" for typed, purpose in _NEXT), sep="\n")

    print_result([asdict(each) for each in results], as_json, show)
    if failed:
        raise SystemSetupError(
            f"{failed} of {len(results)} checks failed.", "See the advice of each failed check."
        )
