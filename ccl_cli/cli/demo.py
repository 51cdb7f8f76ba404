"""``ccl demo``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccl_cli import console
from ccl_cli.cli import options
from ccl_cli.cli.common import DATA, OPTIMISATION, OUTPUT, RUNTIME, examples, with_verbosity
from ccl_cli.errors import CclError

if TYPE_CHECKING:
    from ccl_cli.demo import Demo

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "ccl demo",
        "ccl demo --correspondence 0",
        "ccl demo --full --seeds 3",
        "ccl demo --json > demo.json",
    )
)
@with_verbosity
def demo(
    full: Annotated[bool, typer.Option("--full", help="All methods, five seeds; takes hours.")] = False,
    correspondence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="How often a sound goes with what is seen, 0 to 1; default 0.5.",
            rich_help_panel=DATA,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N|A,B,C", help="How many seeds, or which.", rich_help_panel=OPTIMISATION),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at once; default one per core, or per GPU.", rich_help_panel=RUNTIME),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page; default runs/demo/report.html.", rich_help_panel=OUTPUT),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """See the paper's claim tested on this machine, offline.

    Handwritten digits move over clutter, with sounds that go with some of the actions. Teachers are trained
    on other tasks; students with and without them. Tables, and a page. Give it again to go on.
    """
    from ccl_cli.cli.bench import parse_seeds
    from ccl_cli.demo import run_demo, summary, with_correspondence
    from ccl_cli.recipe_files import load_recipe

    flags = {"bench.seeds": None if seeds is None else parse_seeds(seeds)}
    recipe = load_recipe("demo-full" if full else "demo", flags)
    if correspondence is not None:
        recipe = with_correspondence(recipe, correspondence)
    done = run_demo(recipe, output, jobs)
    if as_json:
        print(json.dumps(summary(done)))
    else:
        _show(done)
    if done.failed:
        raise CclError(
            f"{len(done.failed)} runs failed.", f"Why is in 'log.txt' there, as in '{done.failed[0]}'."
        )


def _show(done: Demo) -> None:
    """The tables, each method against the baseline, and where the page is."""
    from ccl_cli.demo import METRICS
    from ccl_cli.report import paired, terminal
    from ccl_cli.report.study import BASELINE
    from ccl_cli.report.table import tables

    summary = done.study.summary
    plain = console.plain(sys.stdout)
    print(terminal.table(tables(summary, (1, 2), METRICS), summary, plain=plain))
    methods = [name for name in summary.methods if name != BASELINE]
    pairs = [pair for name in methods for pair in paired.compare(summary, name, BASELINE)]
    header, *_ = paired.rows(pairs[:1])
    rows = [[pair.first, *paired.rows([pair])[1]] for pair in pairs]
    print("Top-1 against the baseline, percentage points, seed by seed:")
    console.print_table(["method", *header], rows)
    print(f"\nReport: {done.page}")
