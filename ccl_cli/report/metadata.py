"""What runs recorded besides their metrics: counts of videos, versions, devices, chosen checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ccl_cli.report.results import Results
from ccl_cli.report.runs import Run, clean
from ccl_cli.training.run.folder import RECIPE, SUMMARY, read_json

Lines = list[tuple[str, ...]]  # a header and rows


def evaluated_videos(results: Results) -> Lines:
    """By split: videos, those read, missing and corrupt, and how many runs recorded these counts."""
    columns = ("videos", "read", "missing", "corrupt")
    rows = (
        (clean(split), *(str(counts.get(column, "")) for column in columns))
        for run in results.data_runs
        for split, counts in _evaluation(results, run).get("counts", {}).items()
    )
    return [("split", *columns, "runs"), *_counted(rows)]


def teacher_inputs(results: Results) -> Lines:
    """By teacher: how many training videos gave it an input, and why the others did not."""
    modalities = [_summary(run).get("data", {}).get("modalities", {}) for run in results.data_runs]
    counts = [(clean(name), states) for each in modalities for name, states in each.items()]
    states = list(
        dict.fromkeys(["present", "silent", "no track", *(key for _, row in counts for key in row)])
    )
    rows = ((name, *(str(row.get(state, 0)) for state in states)) for name, row in counts)
    return [("teacher", *states, "runs"), *_counted(rows)]


def unreadable_videos(results: Results) -> list[str]:
    """Each video that could not be read, and why."""
    reasons: dict[str, str] = {}
    for run in results.data_runs:
        data = _summary(run).get("data", {})
        reasons |= dict.fromkeys(map(str, data.get("missing", [])), "not on disk")
        for record in (data, *_evaluation(results, run).get("counts", {}).values()):
            reasons |= dict(record.get("unreadable", {}))
    return [clean(f"{name}: {reason}") for name, reason in reasons.items()]


def versions(results: Results) -> Lines:
    """Versions by package."""
    by_package: dict[str, dict[str, None]] = {}
    for run in results.data_runs:
        for name, version in _summary(run).get("versions", {}).items():
            by_package.setdefault(clean(name), {})[clean(version)] = None
    return [("package", "version"), *((name, ", ".join(each)) for name, each in by_package.items())]


def all_runs(results: Results) -> Lines:
    """Every run that was read, compared here or not, failed ones last."""
    places = {run.folder: place for place, run in enumerate(results.data_runs)}
    evaluated = sorted(results.runs.evaluated, key=lambda run: places.get(run.folder, len(places)))
    header = ("method", "setup", "seed", "evaluated on", "recipe", "device", "seconds", "folder")
    data = results.runs.frame.groupby("folder")["data"].unique()
    return [header, *(_run_row(run, data[str(run.folder)]) for run in (*evaluated, *results.runs.failed))]


def checkpoint_choices(results: Results) -> dict[str, int]:
    """How many runs published which checkpoint, as their evaluation recorded it; "last": none was chosen."""
    records = (_evaluation(results, run) for run in results.data_runs)
    return dict(Counter(clean(record.get("selection", "last")) for record in records))


def recipe_text(run: Run) -> str:
    """The recipe as the run's folder holds it."""
    try:
        return (run.folder / RECIPE).read_text(encoding="utf-8")
    except OSError:
        return ""


def _run_row(run: Run, datasets: Iterable[str]) -> tuple[str, ...]:
    place = (run.method, run.setup or "-", str(run.seed))
    if run.error:
        return (*place, "failed", "", "", "", clean(run.folder))
    summary = _summary(run)
    seconds = summary.get("seconds")
    duration = f"{seconds:.0f}" if isinstance(seconds, int | float) else ""
    device, data = clean(summary.get("device", "")), clean(", ".join(datasets))
    return (*place, data, run.hash, device, duration, clean(run.folder))


def _counted(rows: Iterable[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Equal rows once, with their number."""
    return ((*row, str(count)) for row, count in Counter(map(tuple, rows)).items())


def _summary(run: Run) -> dict[str, Any]:
    return read_json(run.folder / SUMMARY)


def _evaluation(results: Results, run: Run) -> dict[str, Any]:
    return read_json(run.folder / f"eval-{results.data}-{results.split}.json")
