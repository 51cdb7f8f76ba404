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
    dashed = ", the dashed one the baseline" if results.baseline else ""
    text = f"The thick line is {results.best.method}{dashed}."
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
    text = "Rows: the true class; columns: the predicted class. Full colour: all videos of the class."
    return {
        "text": _from_best_run(results, text),
        "panel": confusion_panel(results),
        "mistakes": frequent_mistakes(results),
    }


def _gallery(results: Results) -> dict[str, Any]:
    text = (
        f"Left: a {results.split} video; then the training videos that are nearest by cosine. A tick and "
        "green: of the query's class; a cross and orange: of another. The queries are evenly spread over "
        "the classes, not chosen by outcome."
    )
    return {"text": _from_best_run(results, text), "retrievals": nearest_videos(results)}


def _tsne(results: Results) -> dict[str, Any]:
    text = "Near points have similar features; distances between groups and their sizes mean little."
    return {"text": _from_best_run(results, text), "panels": tsne_panels(results)}


def _correspondence(results: Results) -> dict[str, Any]:
    from ccl_cli.evaluation.classifiers import RULE

    text = (
        "For some videos: what the teacher's own classifier says, in percent. For each class: how many of "
        f"its videos the nearest training videos name rightly, by the teacher's embedding alone. {RULE}"
    )
    teachers = [
        (each, correspondence.recall_panel(each) if isinstance(each, correspondence.TeacherReport) else None)
        for each in correspondence.teachers(results)
    ]
    return {"text": text, "teachers": teachers}


def _data(results: Results) -> dict[str, Any]:
    evaluated = f"Videos evaluated of {results.data}", provenance.evaluated_videos(results)
    inputs = "What the teachers got from the training videos", provenance.teacher_inputs(results)
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
        "Every method (row) with every set of teachers (column), on videos that were not trained on.",
        _results,
    ),
    Section(
        "comparison",
        "Best method against the baseline",
        "How much the best method gains over the student without teachers, in pairs of runs with one seed.",
        _comparison,
    ),
    Section(
        "curves",
        "Training curves",
        "What the runs logged while they trained: means over seeds, with bands of one standard deviation to "
        "either side.",
        _curves,
    ),
    Section(
        "classes",
        "Accuracy by class",
        "Which classes gain from the teachers and which lose: top-1 of each class minus the baseline's, mean "
        "over seeds, in percentage points.",
        _classes,
    ),
    Section("confusion", "Confusion matrix", "Which classes the student takes for which.", _confusion),
    Section(
        "gallery",
        "Retrieval gallery",
        "What the student finds similar: videos, and the training videos that are nearest to them.",
        _gallery,
    ),
    Section(
        "tsne",
        "Features in the plane",
        "How the student groups the videos: a t-SNE of its features.",
        _tsne,
    ),
    Section(
        "correspondence",
        "Audio-video correspondence",
        "How far each teacher knows the classes before anything is distilled from it.",
        _correspondence,
    ),
    Section("data", "Data", "How many videos these figures come from, and which were left out.", _data),
    Section(
        "origin",
        "Recipe, versions and runs",
        "What is needed to repeat the runs.",
        _origin,
    ),
)
