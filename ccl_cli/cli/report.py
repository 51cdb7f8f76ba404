"""``ccl report``: results of runs as tables, comparisons, figures and an HTML page."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, group, output_option, plugin_argument
from ccl_cli.errors import UsageError
from ccl_cli.utils import console
from ccl_cli.utils.files import write_text

app = group(
    "Show the results of runs as tables, comparisons, figures and an HTML page.",
    "ccl report table",
    "ccl report table runs/ucf51-bench --paper",
    "ccl report compare ccl crd --setup AI",
    "ccl report html runs/ucf51-bench --output report.html",
)
_log = logging.getLogger("ccl")
_BY_SUFFIX = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json"}

Runs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RUN|FOLDER", help="Runs, or folders of runs. Default: the newest folder."),
]


def _format_option(formats: str) -> Any:
    text = f"{formats}. Default: from the suffix of the output file, else terminal."
    return output_option("--format", metavar="FORMAT", help=text)


_METRICS = "top1, top5, mean_class, r1, r5, r10 or map"
Output = Annotated[Path | None, output_option(metavar="FILE", help="File to write. Default: the terminal.")]
MethodRow = Annotated[str, plugin_argument("ccl.methods", "Method, as in the tables.", "METHOD")]


@command(
    app,
    "table",
    "ccl report table",
    "ccl report table runs/ucf51-bench --table 2 --paper",
    "ccl report table runs/mine/a runs/mine/b --runs",
    "ccl report table --format latex --output tables.tex",
)
def table(
    runs: Runs = None,
    number: Annotated[
        Literal["1", "2", "3", "all"],
        typer.Option(
            "--table",
            help="Table to print: 1 is recognition, 2 retrieval, 3 ablations; all prints those "
            "that have runs.",
        ),
    ] = "all",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC", help=f"Metric to show instead of the paper's: {_METRICS}. Repeatable."
        ),
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Also show the paper's results.")] = False,
    show_runs: Annotated[bool, typer.Option("--runs", help="List the runs behind every value.")] = False,
    split: options.Split = "test",
    style: Annotated[
        Literal["terminal", "markdown", "csv", "latex", "json"] | None,
        _format_option("terminal, markdown, csv, latex or json"),
    ] = None,
    output: Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Print tables like the paper's: methods by teachers, with mean and standard deviation over seeds.

    Runs of one method and setup are averaged if their recipes differ only in the seed.
    """
    from ccl_cli.report.records.results import load_results
    from ccl_cli.report.tables.build import tables
    from ccl_cli.report.tables.csv_json import csv_tables, json_tables
    from ccl_cli.report.tables.latex import latex_tables
    from ccl_cli.report.tables.markdown import markdown_tables
    from ccl_cli.report.tables.terminal import terminal_tables

    chosen = "json" if as_json else _format(style, output)
    results = load_results(runs or (), split)
    built = tables(results, () if number == "all" else (int(number),), metric or (), printed=paper)
    formats: dict[str, Callable[..., str]] = {
        "terminal": partial(terminal_tables, runs=show_runs, **_layout(output)),
        **{"csv": csv_tables, "json": json_tables, "latex": latex_tables, "markdown": markdown_tables},
    }
    text = formats[chosen](built, results)
    _deliver(text, output, results.notes if chosen in ("csv", "latex") else ())


@command(
    app,
    "compare",
    "ccl report compare ccl baseline",
    "ccl report compare ccl crd runs/ucf51-bench --setup AI --metric r1",
)
def compare(
    first: MethodRow,
    second: MethodRow,
    runs: Runs = None,
    metric: Annotated[str, typer.Option(metavar="METRIC", help=f"{_METRICS}.")] = "top1",
    setup: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Compare only this setup, e.g. AI. Repeatable.")
    ] = None,
    split: options.Split = "test",
    style: Annotated[
        Literal["terminal", "markdown", "json"] | None, _format_option("terminal, markdown or json")
    ] = None,
    output: Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare two methods, paired by seed: mean difference, confidence interval and wins.

    The interval is Student's t interval of the differences between runs with the same seed.
    """
    from ccl_cli.report.records.comparison import compare as compare_methods
    from ccl_cli.report.records.results import summarise
    from ccl_cli.report.records.runs import read_runs
    from ccl_cli.report.tables.csv_json import json_comparison
    from ccl_cli.report.tables.markdown import markdown_comparison
    from ccl_cli.report.tables.terminal import terminal_comparison

    chosen = "json" if as_json else _format(style, output)
    formats: dict[str, Callable[..., str]] = {
        "terminal": partial(terminal_comparison, **_layout(output)),
        **{"json": json_comparison, "markdown": markdown_comparison},
    }
    if chosen not in formats:
        raise UsageError(f"A comparison cannot be written as {chosen}.", f"Use {', '.join(formats)}.")
    results = summarise(read_runs(runs or (), split).of_two(first, second))
    compared = compare_methods(results, first, second, metric, setup or ())
    _deliver(formats[chosen](compared, results), output)


@command(
    app,
    "html",
    "ccl report html",
    "ccl report html runs/ucf51-bench --output ucf51.html",
    "ccl report html runs/mine/a runs/mine/b --split val",
)
def html(
    runs: Runs = None,
    output: Annotated[Path, output_option(metavar="FILE", help="HTML page to write.")] = Path("report.html"),
    split: options.Split = "test",
) -> None:
    """Write a self-contained HTML page with tables, figures and the provenance of each result.

    The first run of the best method and its teachers process the test videos once; the results are cached in
    the run's folder.
    """
    from ccl_cli.report.page.page import page
    from ccl_cli.report.records.results import load_results

    _check_file(output)
    _deliver(page(load_results(runs or (), split)), output)


@command(
    app,
    "figure",
    "ccl report figure overview runs/ucf51-bench --output overview.pdf",
    "ccl report figure tsne runs/mine/20260101-120000-1a2b3c4d --output tsne.png",
)
def figure(
    name: Annotated[
        Literal["overview", "curves", "classes", "confusion", "gallery", "tsne", "correspondence"],
        typer.Argument(
            metavar="NAME",
            help="Figure: overview, curves, classes, confusion, gallery, tsne or correspondence.",
        ),
    ],
    runs: Runs = None,
    output: Annotated[
        Path | None,
        output_option(
            metavar="FILE", help="File to write, with suffix .png, .svg or .pdf. Default: NAME.png."
        ),
    ] = None,
    split: options.Split = "test",
) -> None:
    """Write one figure of the page as PNG, SVG or PDF."""
    from ccl_cli.report.figures.registry import check_suffix, write_figure
    from ccl_cli.report.records.results import load_results

    path = output or Path(f"{name}.png")
    _check_file(path)
    check_suffix(path)
    write_figure(load_results(runs or (), split), name, path)
    _log.info("Written to %s.", path)


def print_tables(runs: Sequence[Path]) -> None:
    """Print the tables of some runs; print nothing without runs."""
    if not runs:
        return
    from ccl_cli.report.records.results import load_results
    from ccl_cli.report.tables.build import tables
    from ccl_cli.report.tables.terminal import terminal_tables

    results = load_results(runs)
    _deliver(terminal_tables(tables(results), results, **_layout(None)), None)


def _format(style: str | None, output: Path | None) -> str:
    return style or _BY_SUFFIX.get(output.suffix if output else "", "terminal")


def _layout(output: Path | None) -> dict[str, Any]:
    """Layout of terminal tables; a file is plain and does not depend on the terminal."""
    from ccl_cli.report.tables.terminal import FILE_WIDTH

    plain = output is not None or console.plain(sys.stdout)
    return {"plain": plain, "width": FILE_WIDTH if output is not None else None}


def _deliver(text: str, output: Path | None, warnings: Sequence[str] = ()) -> None:
    """Print or write the text; log as warnings what the text does not show."""
    for warning in warnings:
        _log.warning(warning)
    if output is None:
        print(text, end="")
        return
    _check_file(output)
    write_text(output, text)
    _log.info("Written to %s.", output)


def _check_file(output: Path) -> None:
    if output.is_dir():
        raise UsageError(f"'{output}' is a folder.", "Give the path of a file.")
