"""Tables and comparisons as CSV and JSON, with unrounded values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ccl_cli.report.records import paper
from ccl_cli.report.records.comparison import Comparison
from ccl_cli.report.records.results import Cell, Results
from ccl_cli.report.tables.build import Table
from ccl_cli.utils.rows import csv_text

_RECORD = ("data", "method", "setup", "metric", "mean", "sd", "n", "failed", "paper")


def csv_tables(tables: Sequence[Table], results: Results) -> str:
    """Format one CSV row per data set, method, setup and metric."""
    rows: list[Sequence[object]] = [[*_RECORD, "seeds", "recipes", "folders"]]
    for record in _records(tables):
        runs = [";".join(str(run[key]) for run in record["runs"]) for key in ("seed", "recipe", "folder")]
        rows.append([*(record[name] for name in _RECORD), *runs])
    return csv_text(rows)


def json_tables(tables: Sequence[Table], results: Results) -> str:
    """Format a JSON object with results and notes."""
    return json.dumps({"results": list(_records(tables)), "notes": results.notes}, indent=2) + "\n"


def json_comparison(comparisons: Sequence[Comparison], results: Results) -> str:
    """Format a JSON object with comparisons and notes."""
    records = [_comparison_record(each) for each in comparisons]
    return json.dumps({"comparisons": records, "notes": results.notes}, indent=2) + "\n"


def _records(tables: Sequence[Table]) -> Iterator[dict[str, Any]]:
    """Yield every value once, with its runs."""
    for cell in dict.fromkeys(cell for table in tables for cell in table.distinct_cells):
        yield _cell_record(cell)


def _cell_record(cell: Cell) -> dict[str, Any]:
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


def _comparison_record(comparison: Comparison) -> dict[str, Any]:
    wins, ties, losses = comparison.wins_ties_losses
    return {
        **asdict(comparison),
        "mean": comparison.mean,
        "interval": comparison.interval,
        "p": comparison.p,
        "n": comparison.n,
        "wins": wins,
        "ties": ties,
        "losses": losses,
        "sentence": comparison.sentence,
    }
