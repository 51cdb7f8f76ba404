"""Figures as records: JSON and CSV, unrounded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ccl_cli.report import paper
from ccl_cli.report.paired import Paired
from ccl_cli.report.table import Cell, Summary, Table
from ccl_cli.utils.rows import csv_text

_FIELDS = ("data", "method", "setup", "metric", "mean", "sd", "n", "failed", "paper")


def records(found: Sequence[Table]) -> Iterator[dict[str, Any]]:
    """Every figure once, with its runs."""
    seen: set[int] = set()
    for table in found:
        for (_, column), cell in table.cells.items():
            if id(cell) not in seen:
                seen.add(id(cell))
                yield _cell(cell, column.setup)


def _cell(cell: Cell, setup: str) -> dict[str, Any]:
    theirs = paper.figure(cell.data, cell.method, cell.setup or setup, cell.metric)
    return {
        "data": cell.data,
        "method": cell.method,
        "setup": cell.setup,
        "metric": cell.metric,
        "mean": cell.mean,
        "sd": cell.sd,
        "n": cell.n,
        "failed": len(cell.failed),
        "paper": float(theirs) if theirs not in ("", "-") else None,
        "runs": [
            {
                "seed": run.seed,
                "recipe": run.hash,
                "folder": str(run.folder),
                "value": cell.values[run.seed],
                "manifest": run.manifests[cell.data],
            }
            for run in cell.runs
        ],
    }


def table_csv(found: Sequence[Table], summary: Summary) -> str:
    """One row for each data set, method, setup and metric; figures unrounded."""
    rows: list[Sequence[object]] = [[*_FIELDS, "seeds", "recipes", "folders"]]
    for record in records(found):
        runs = [[str(run[key]) for run in record["runs"]] for key in ("seed", "recipe", "folder")]
        values = [*(record[name] for name in _FIELDS), *(";".join(texts) for texts in runs)]
        rows.append(values)
    return csv_text(rows)


def table_json(found: Sequence[Table], summary: Summary) -> str:
    """One object: figures and notes."""
    return _object(figures=list(records(found)), notes=summary.notes)


def comparison_json(pairs: Sequence[Paired], summary: Summary) -> str:
    """One object: comparisons and notes."""
    return _object(comparisons=[_pair(pair) for pair in pairs], notes=summary.notes)


def _pair(pair: Paired) -> dict[str, Any]:
    wins, ties, losses = pair.wins_ties_losses
    return {
        "data": pair.data,
        "setup": pair.setup,
        "metric": pair.metric,
        "first": pair.first,
        "second": pair.second,
        "mean": pair.mean,
        "interval": pair.interval,
        "p": pair.p,
        "n": pair.n,
        "wins": wins,
        "ties": ties,
        "losses": losses,
        "differences": pair.differences,
        "unpaired_seeds": pair.lonely,
        "sentence": pair.sentence,
    }


def _object(**entries: Any) -> str:
    return json.dumps(entries, indent=2) + "\n"
