"""Tables and comparisons as CSV and JSON, with unrounded values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ccl_cli.report.records import paper
from ccl_cli.report.records.comparison import Comparison
from ccl_cli.report.records.results import Cell, Results
from ccl_cli.report.tables.build import Table
from ccl_cli.utils.rows import csv_text


def csv_tables(tables: Sequence[Table], results: Results) -> str:
    """Format one CSV row per data set, method, setup and metric."""
    rows: list[Sequence[object]] = []
    for record in _records(tables):
        runs = record.pop("runs")
        lists = {f"{key}s": ";".join(str(run[key]) for run in runs) for key in ("seed", "recipe", "folder")}
        rows.append([*(record | lists).values()])
    header = ("data", "method", "setup", "metric", "mean", "sd", "n", "failed", "paper")
    return csv_text([[*header, "seeds", "recipes", "folders"], *rows])


def json_tables(tables: Sequence[Table], results: Results) -> str:
    """Format a JSON object with results and notes."""
    return json.dumps({"results": _records(tables), "notes": results.notes}, indent=2) + "\n"


def json_comparison(comparisons: Sequence[Comparison], results: Results) -> str:
    """Format a JSON object with comparisons and notes."""
    computed = ("mean", "interval", "p", "n", "sentence")
    records = [
        asdict(each)
        | {name: getattr(each, name) for name in computed}
        | dict(zip(("wins", "ties", "losses"), each.wins_ties_losses, strict=True))
        for each in comparisons
    ]
    return json.dumps({"comparisons": records, "notes": results.notes}, indent=2) + "\n"


def _records(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Every value once, with its runs."""
    return [*map(_record, dict.fromkeys(cell for table in tables for cell in table.distinct_cells))]


def _record(cell: Cell) -> dict[str, Any]:
    printed = paper.printed_value(cell.data, cell.method, cell.setup, cell.metric)
    runs = [
        {
            "seed": run.seed,
            "recipe": run.hash,
            "folder": str(run.folder),
            "value": cell.values[run.seed],
            "manifest": run.manifests[cell.data],
        }
        for run in cell.runs
    ]
    record = {name: getattr(cell, name) for name in ("data", "method", "setup", "metric", "mean", "sd", "n")}
    paper_value = float(printed) if printed not in ("", "-") else None
    return record | {"failed": len(cell.failed), "paper": paper_value, "runs": runs}
