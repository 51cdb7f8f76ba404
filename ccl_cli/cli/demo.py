"""``ccl demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import (
    command,
    data_option,
    output_option,
    print_result,
    refuse_failed,
    runtime_option,
)
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.demo import Demo

app = typer.Typer(add_completion=False)


@command(
    app,
    "demo",
    "ccl demo",
    "ccl demo --correspondence 0",
    "ccl demo --full --seeds 3",
    "ccl demo --json > demo.json",
)
def demo(
    full: Annotated[
        bool, typer.Option("--full", help="Run all methods with five seeds. Takes hours.")
    ] = False,
    correspondence: Annotated[
        float | None,
        data_option(
            min=0, max=1, help="Probability, from 0 to 1, that the sound matches the motion. Default: 1."
        ),
    ] = None,
    seeds: options.Seeds = None,
    jobs: Annotated[
        int | None,
        runtime_option(min=1, help="Number of parallel runs. Default: one per core, or one per GPU."),
    ] = None,
    output: Annotated[
        Path | None, output_option(metavar="FILE", help="HTML page to write. Default: runs/demo/report.html.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Reproduce the paper's claim on this machine, offline.

    Generates videos of moving digits with sounds, trains teachers on other tasks, and trains students with
    and without these teachers. Run the same command again to continue after an interruption.
    """
    from ccl_cli.bench.seeds import parse_seeds
    from ccl_cli.config.load import load_recipe
    from ccl_cli.demo import run_demo, summary, with_correspondence

    flags = {"bench.seeds": None if seeds is None else parse_seeds(seeds)}
    recipe = load_recipe("demo-full" if full else "demo", flags)
    if correspondence is not None:
        recipe = with_correspondence(recipe, correspondence)
    done = run_demo(recipe, output, jobs)
    print_result(summary(done), as_json, lambda: _print(done))
    refuse_failed(done.failed)


def _print(done: Demo) -> None:
    """Print the conclusion, the tables, the differences to the baseline, and the path of the page."""
    from ccl_cli.demo import METRICS
    from ccl_cli.report.records.comparison import against_baseline
    from ccl_cli.report.records.conclusion import conclusion
    from ccl_cli.report.records.results import BASELINE
    from ccl_cli.report.tables.build import tables
    from ccl_cli.report.tables.terminal import terminal_tables, wrapped

    results, plain = done.results, console.plain(sys.stdout)
    for place, line in enumerate(map(wrapped, conclusion(results))):
        print(line if place else console.bold(line))
    available = {cell.metric for cell in results.cells.values()}
    metrics = [metric for metric in METRICS if metric in available]
    print(f"\n{terminal_tables(tables(results, (), metrics), results, plain=plain)}")
    if results.baseline:
        methods = [name for name in results.methods if name != BASELINE]
        header, *rows = against_baseline(results, methods, BASELINE, metrics)
        print("Difference to the baseline in percentage points, paired by seed:")
        console.print_table(header, rows)
        print()
    print(f"Report: {done.page}")
