"""Where figures come from: counts of videos, recipes, versions, seeds and folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ccl_cli.report.collect import Run, clean
from ccl_cli.report.study import Study
from ccl_cli.training.runs import RECIPE, SUMMARY, read_json

Rows = list[tuple[str, ...]]


def evaluated(study: Study) -> Rows:
    """A header; by split: videos, those read, missing and corrupt, and the runs that say so."""
    lines = (line for run in study.runs for line in _evaluated(study, run))
    return [("split", "videos", "read", "missing", "corrupt", "runs"), *_distinct(lines)]


def heard(study: Study) -> Rows:
    """A header; by teacher: how many training videos it had something from, and why not from the others."""
    found: list[tuple[str, Mapping[str, int]]] = []
    for run in study.runs:
        data = _summary(run).get("data", {})
        found += [(clean(name), states) for name, states in data.get("modalities", {}).items()]
    names = list(dict.fromkeys(["present", "silent", "no track", *(key for _, row in found for key in row)]))
    lines = ((name, *(str(states.get(key, 0)) for key in names)) for name, states in found)
    rows = _distinct(lines)
    return [("teacher", *names, "runs"), *rows] if rows else []


def unreadable(study: Study) -> list[str]:
    """Each video that could not be read, and why."""
    reasons: dict[str, str] = {}
    for run in study.runs:
        record = read_json(run.folder / f"eval-{study.data}-{study.split}.json")
        data = _summary(run).get("data", {})
        reasons |= dict.fromkeys(map(str, data.get("missing", [])), "not on disk")
        for found in (data, *record.get("counts", {}).values()):
            reasons |= dict(found.get("unreadable", {}))
    return [clean(f"{name}: {reason}") for name, reason in reasons.items()]


def versions(study: Study) -> Rows:
    """A header; by package, its versions."""
    found: dict[str, dict[str, None]] = {}
    for run in study.runs:
        for name, version in _summary(run).get("versions", {}).items():
            found.setdefault(clean(name), {})[clean(version)] = None
    return [("package", "version"), *((name, ", ".join(there)) for name, there in found.items())]


def runs(study: Study) -> Rows:
    """A header; every run that was read, compared here or not, failed ones last."""
    header = ("method", "setup", "seed", "evaluated on", "recipe", "device", "seconds", "folder")
    place = {run.folder: number for number, run in enumerate(study.runs)}
    found = sorted(study.collected.runs, key=lambda run: place.get(run.folder, len(place)))
    failed = [
        (run.method, run.setup or "-", str(run.seed), "failed", "", "", "", clean(run.folder))
        for run in study.collected.failed
    ]
    return [header, *map(_run, found), *failed]


def selections(study: Study) -> dict[str, int]:
    """How many runs published which checkpoint, in the words of their evaluation; "last": nothing chosen."""
    records = (read_json(run.folder / f"eval-{study.data}-{study.split}.json") for run in study.runs)
    return dict(Counter(clean(record.get("selection", "last")) for record in records))


def recipe(study: Study) -> str:
    """The shown run's recipe, as its folder holds it."""
    try:
        return (study.shown.folder / RECIPE).read_text(encoding="utf-8")
    except OSError:
        return ""


def _run(run: Run) -> tuple[str, ...]:
    summary = _summary(run)
    seconds = summary.get("seconds")
    took = f"{seconds:.0f}" if isinstance(seconds, int | float) else ""
    device = clean(summary.get("device", ""))
    data = clean(", ".join(run.manifests))
    return (run.method, run.setup or "-", str(run.seed), data, run.hash, device, took, clean(run.folder))


def _evaluated(study: Study, run: Run) -> Iterator[tuple[str, ...]]:
    record = read_json(run.folder / f"eval-{study.data}-{study.split}.json")
    for split, row in record.get("counts", {}).items():
        yield (clean(split), *(str(row.get(key, "")) for key in ("videos", "read", "missing", "corrupt")))


def _distinct(lines: Iterable[Sequence[str]]) -> Rows:
    """Equal lines once, with their number."""
    counts: dict[tuple[str, ...], int] = {}
    for line in lines:
        counts[tuple(line)] = counts.get(tuple(line), 0) + 1
    return [(*line, str(count)) for line, count in counts.items()]


def _summary(run: Run) -> dict[str, Any]:
    return read_json(run.folder / SUMMARY)
