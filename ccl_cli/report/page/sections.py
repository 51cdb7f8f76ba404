"""Sections of the page: key, title, and the values that each template macro shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ccl_cli.errors import CclError, DataError
from ccl_cli.evaluation.verdicts import RULE
from ccl_cli.report.figures import correspondence
from ccl_cli.report.figures.classes import class_gains, class_panels
from ccl_cli.report.figures.confusion import confusion_panel, frequent_mistakes
from ccl_cli.report.figures.curves import curve_methods, curve_panels
from ccl_cli.report.figures.gallery import nearest_videos
from ccl_cli.report.figures.style import method_colour_name
from ccl_cli.report.figures.tsne import tsne_panels
from ccl_cli.report.records import provenance
from ccl_cli.report.records.comparison import CAUTION, HEADER, Comparison, compare
from ccl_cli.report.records.results import BASELINE, Results
from ccl_cli.report.tables.build import MAX_COLUMNS, blocks, footer, tables
from ccl_cli.utils.text import one_line


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        key: Anchor of the section, and name of its macro in ``sections.html``.
        title: Heading.
        content: Function that returns the arguments of the macro besides ``results``. If it raises a
            ``CclError``, the page shows the message instead.
    """

    key: str
    title: str
    content: Callable[[Results], dict[str, Any]]


def message_of(error: CclError) -> str:
    """Message and hint of an error, on one line."""
    return one_line(f"{error.message} {error.hint or ''}")


def best_against_baseline(results: Results, metric: str) -> list[Comparison]:
    """Compare the best method with the baseline on the page's data set; empty without a baseline."""
    available = any((cell.data, cell.metric) == (results.data, metric) for cell in results.cells.values())
    if results.baseline is None or not available:
        return []
    pairs = compare(results, results.best.method, BASELINE, metric)
    return [pair for pair in pairs if pair.data == results.data]


def _results(results: Results) -> dict[str, Any]:
    shown = []
    for table in tables(results):
        parts = blocks(table, lambda block: len(block.levels) <= MAX_COLUMNS)
        bold = "Bold: best of its column. " if any(part.has_best for part in parts) else ""
        shown.append((parts, bold + footer(table, results)))
    return {"blocks_and_footers": shown}


def _comparison(results: Results) -> dict[str, Any]:
    if results.baseline is None:
        raise DataError("There is no baseline among these runs to compare with.")
    by_metric = [best_against_baseline(results, metric) for metric in ("top1", "r1")]
    return {"by_metric": [*filter(None, by_metric)], "header": HEADER, "caution": CAUTION}


def _curves(results: Results) -> dict[str, Any]:
    colours = [(method_colour_name(results, method), method) for method in curve_methods(results)]
    return {"colours": colours, "by_setup": [*curve_panels(results).values()]}


def _classes(results: Results) -> dict[str, Any]:
    best, by_setup, errors = results.best.setup, [], []
    for setup in sorted(results.setups, key=lambda setup: setup != best):
        entry: dict[str, Any] = {"title": f"Setup {setup}" if setup else "Classes", "open": setup == best}
        try:
            gains = class_gains(results, setup)
            entry |= {"sentences": [gain.sentence for gain in gains], "panels": class_panels(gains)}
        except DataError as error:  # the other setups can still be shown
            errors.append(error)
            entry["error"] = message_of(error)
        by_setup.append(entry)
    if len(errors) == len(by_setup):
        raise errors[0]
    return {"by_setup": by_setup}


def _confusion(results: Results) -> dict[str, Any]:
    return {"panel": confusion_panel(results), "mistakes": frequent_mistakes(results)}


def _gallery(results: Results) -> dict[str, Any]:
    return {"retrievals": nearest_videos(results)}


def _tsne(results: Results) -> dict[str, Any]:
    return {"panels": tsne_panels(results)}


def _correspondence(results: Results) -> dict[str, Any]:
    teachers = [
        (each, None if each.missing else correspondence.recall_panel(each))
        for each in correspondence.teachers(results)
    ]
    return {"rule": RULE, "teachers": teachers}


def _data(results: Results) -> dict[str, Any]:
    evaluated = f"Evaluated videos of {results.data}", provenance.evaluated_videos(results)
    inputs = "Training videos with an input for each teacher", provenance.teacher_inputs(results)
    return {"tables": [evaluated, inputs], "unreadable": provenance.unreadable_videos(results)}


def _origin(results: Results) -> dict[str, Any]:
    recipe = provenance.recipe_text(results.best_run)
    return {
        "runs": provenance.all_runs(results),
        "recipe": recipe,
        "versions": provenance.versions(results),
    }


SECTIONS = (
    Section("results", "Results", _results),
    Section("comparison", "Best method against the baseline", _comparison),
    Section("curves", "Training curves", _curves),
    Section("classes", "Accuracy by class", _classes),
    Section("confusion", "Confusion matrix", _confusion),
    Section("gallery", "Retrieval gallery", _gallery),
    Section("tsne", "t-SNE of the features", _tsne),
    Section("correspondence", "Audio-video correspondence", _correspondence),
    Section("data", "Data", _data),
    Section("origin", "Recipe, versions and runs", _origin),
)
