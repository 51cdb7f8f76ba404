"""Sections of the page: heading, and the values that each template macro shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ccl_cli.errors import CclError, DataError
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
        lead: One sentence under the heading that says what the section shows.
        content: Function that returns the arguments of the macro. If it raises a ``CclError``, the page shows
            the message instead.
    """

    key: str
    title: str
    lead: str
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


def _from_best_run(results: Results, text: str) -> str:
    return f"{text} From {results.best_run.label}, seed {results.best_run.seed}."


def _results(results: Results) -> dict[str, Any]:
    parts = [
        (
            blocks(table, lambda block: len(block.header) <= MAX_COLUMNS),
            "Bold: best of its column. " * bool(table.best) + footer(table, results),
        )
        for table in tables(results)
    ]
    return {"blocks_and_footers": parts, "notes": results.notes}


def _comparison(results: Results) -> dict[str, Any]:
    if results.baseline is None:
        raise DataError("There is no baseline among these runs to compare with.")
    by_metric = [
        {
            "title": pairs[0].title,
            "lines": [HEADER, *(pair.row for pair in pairs)],
            "sentences": [pair.sentence for pair in pairs],
        }
        for metric in ("top1", "r1")
        if (pairs := best_against_baseline(results, metric))
    ]
    return {"by_metric": by_metric, "caution": CAUTION}


def _curves(results: Results) -> dict[str, Any]:
    dashed = "; dashed: baseline" if results.baseline else ""
    text = f"Thick: {results.best.method}, the best method{dashed}."
    colours = [(method_colour_name(results, method), method) for method in curve_methods(results)]
    by_setup = list(curve_panels(results).values())
    return {"text": text, "colours": colours, "by_setup": by_setup}


def _classes(results: Results) -> dict[str, Any]:
    best, by_setup, errors = results.best.setup, [], []
    for setup in sorted(results.setups, key=lambda setup: setup != best):
        entry: dict[str, Any] = {"title": f"Setup {setup}" if setup else "Classes", "open": setup == best}
        try:
            gains = class_gains(results, setup)
            entry |= {
                "sentences": [gain.sentence for gain in gains],
                "panels": class_panels(gains),
            }
        except DataError as error:  # the other setups can still be shown
            errors.append(error)
            entry["error"] = message_of(error)
        by_setup.append(entry)
    if len(errors) == len(by_setup):
        raise errors[0]
    return {"by_setup": by_setup}


def _confusion(results: Results) -> dict[str, Any]:
    text = "Rows: true classes. Columns: predicted classes. The darker a cell, the larger its share."
    return {
        "text": _from_best_run(results, text),
        "panel": confusion_panel(results),
        "mistakes": frequent_mistakes(results),
    }


def _gallery(results: Results) -> dict[str, Any]:
    text = (
        f"Left: a {results.split} video, the query. Right: the training videos with the most similar "
        "features (cosine), most similar first. ✓ and green: the class of the query. ✗ and orange: another "
        "class. The queries are evenly spread over the classes and not selected by their result."
    )
    return {"text": _from_best_run(results, text), "retrievals": nearest_videos(results)}


def _tsne(results: Results) -> dict[str, Any]:
    text = "Neighbouring points have similar features. Sizes and distances of groups mean little."
    return {"text": _from_best_run(results, text), "panels": tsne_panels(results)}


def _correspondence(results: Results) -> dict[str, Any]:
    from ccl_cli.evaluation.verdicts import RULE

    text = (
        "For a few videos: the predictions of the teacher's own classifier, in percent. For each class: the "
        f"recall of a nearest-neighbour classifier on the teacher's embeddings. {RULE}"
    )
    teachers = [
        (each, correspondence.recall_panel(each) if isinstance(each, correspondence.TeacherReport) else None)
        for each in correspondence.teachers(results)
    ]
    return {"text": text, "teachers": teachers}


def _data(results: Results) -> dict[str, Any]:
    evaluated = f"Evaluated videos of {results.data}", provenance.evaluated_videos(results)
    inputs = "Training videos with an input for each teacher", provenance.teacher_inputs(results)
    return {"tables": [evaluated, inputs], "unreadable": provenance.unreadable_videos(results)}


def _origin(results: Results) -> dict[str, Any]:
    return {
        "runs": provenance.all_runs(results),
        "run": results.best_run,
        "recipe": provenance.recipe_text(results.best_run),
        "versions": provenance.versions(results),
    }


SECTIONS = (
    Section(
        "results",
        "Results",
        "Methods (rows) by teachers (columns), on videos that no student was trained on.",
        _results,
    ),
    Section(
        "comparison",
        "Best method against the baseline",
        "Gain of the best method over the student without teachers, paired by seed.",
        _comparison,
    ),
    Section(
        "curves",
        "Training curves",
        "Logged metrics: mean over seeds, with a band of ± one standard deviation.",
        _curves,
    ),
    Section(
        "classes",
        "Accuracy by class",
        "Top-1 of each class minus that of the baseline, in percentage points, mean over seeds.",
        _classes,
    ),
    Section("confusion", "Confusion matrix", "Which classes the student confuses.", _confusion),
    Section(
        "gallery",
        "Retrieval gallery",
        "Videos, and the training videos that the student considers most similar to them.",
        _gallery,
    ),
    Section(
        "tsne",
        "t-SNE of the features",
        "How the student groups the videos: its features, projected to two dimensions.",
        _tsne,
    ),
    Section(
        "correspondence",
        "Audio-video correspondence",
        "How well each teacher separates the classes, before any distillation.",
        _correspondence,
    ),
    Section("data", "Data", "Number of evaluated videos, and the videos that were left out.", _data),
    Section(
        "origin",
        "Recipe, versions and runs",
        "Everything needed to repeat the runs.",
        _origin,
    ),
)
