"""Provenance of results: counts of videos, recipes, versions, devices and selected checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ccl_cli.report.records.results import Results
from ccl_cli.report.records.run import Run
from ccl_cli.training.run.folder import RECIPE, SUMMARY, read_json
from ccl_cli.utils.text import one_line

Lines = list[tuple[str, ...]]  # a header and rows


def evaluated_videos(results: Results) -> Lines:
    """Table of evaluated videos by split: total, read, missing and corrupt, and the number of runs."""
    columns = ("videos", "read", "missing", "corrupt")
    counts = (
        item for run in results.data_runs for item in _evaluation(results, run).get("counts", {}).items()
    )
    return [("split", *columns, "runs"), *_counted(columns, counts)]


def teacher_inputs(results: Results) -> Lines:
    """Table of teacher inputs: number of training videos with and without an input for each teacher."""
    inputs = (_summary(run).get("data", {}).get("modalities", {}) for run in results.data_runs)
    counts = [item for each in inputs for item in each.items()]
    states = dict.fromkeys(["present", "silent", "no track", *(key for _, row in counts for key in row)])
    return [("teacher", *states, "runs"), *_counted(states, counts)]


def unreadable_videos(results: Results) -> list[str]:
    """Unreadable videos, each with the reason."""
    reasons: dict[str, str] = {}
    for run in results.data_runs:
        data = _summary(run).get("data", {})
        reasons |= dict.fromkeys(map(str, data.get("missing", [])), "not on disk")
        for record in (data, *_evaluation(results, run).get("counts", {}).values()):
            reasons |= dict(record.get("unreadable", {}))
    return [one_line(f"{name}: {reason}") for name, reason in reasons.items()]


def versions(results: Results) -> Lines:
    """Table of package versions."""
    by_package: dict[str, dict[str, None]] = {}
    for run in results.data_runs:
        for name, version in _summary(run).get("versions", {}).items():
            by_package.setdefault(one_line(name), {})[one_line(version)] = None
    return [("package", "version"), *((name, ", ".join(each)) for name, each in by_package.items())]


def all_runs(results: Results) -> Lines:
    """Table of all runs, including runs on other data sets; failed runs last."""
    places = {run.folder: place for place, run in enumerate(results.data_runs)}
    evaluated = sorted(results.runs.evaluated, key=lambda run: places.get(run.folder, len(places)))
    header = ("method", "setup", "seed", "evaluated on", "recipe", "device", "seconds", "folder")
    return [header, *map(_run_row, (*evaluated, *results.runs.failed))]


def checkpoint_choices(results: Results) -> dict[str, int]:
    """Number of runs by selection of the published checkpoint; "last" means no selection."""
    records = (_evaluation(results, run) for run in results.data_runs)
    return dict(Counter(one_line(record.get("selection", "last")) for record in records))


def recipe_text(run: Run) -> str:
    """Text of the recipe in the run folder; "" if it cannot be read."""
    try:
        return (run.folder / RECIPE).read_text(encoding="utf-8")
    except OSError:
        return ""


def _run_row(run: Run) -> tuple[str, ...]:
    place = (run.method, run.setup or "-", str(run.seed))
    if run.error:
        return (*place, "failed", "", "", "", one_line(run.folder))
    summary = _summary(run)
    seconds = summary.get("seconds")
    duration = f"{seconds:.0f}" if isinstance(seconds, int | float) else ""
    device, data = one_line(summary.get("device", "")), one_line(", ".join(run.datasets))
    return (*place, data, run.hash, device, duration, one_line(run.folder))


def _counted(
    columns: Iterable[str], counts: Iterable[tuple[str, Mapping[str, Any]]]
) -> Iterator[tuple[str, ...]]:
    """Name and counts of each distinct row, and the number of its occurrences."""
    columns = list(columns)
    rows = ((one_line(name), *(str(row.get(column, 0)) for column in columns)) for name, row in counts)
    return ((*row, str(count)) for row, count in Counter(rows).items())


def _summary(run: Run) -> dict[str, Any]:
    return read_json(run.folder / SUMMARY)


def _evaluation(results: Results, run: Run) -> dict[str, Any]:
    return read_json(run.folder / f"eval-{results.data}-{results.split}.json")
