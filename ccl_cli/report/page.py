"""One page that needs nothing else: figures, pictures and where they come from."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from ccl_cli import __version__
from ccl_cli.errors import CclError, DataError
from ccl_cli.report import correspondence, figures, metadata, video_figures
from ccl_cli.report.comparison import CAUTION, HEADER, Comparison, compare
from ccl_cli.report.finding import finding, main_method
from ccl_cli.report.plot import inline
from ccl_cli.report.results import BASELINE, Cell, Results, load_results
from ccl_cli.report.runs import METRICS, clean
from ccl_cli.report.style import page_colours
from ccl_cli.report.tables import blocks, footer, tables
from ccl_cli.report.writers import MAX_COLUMNS
from ccl_cli.utils.files import write_text

_NUMBERS = re.compile(r"([-+<]? ?\d[\d,.]*( %|%)?(( to |/)[-+]?\d[\d.]*)*|-)?")


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: Its address within the page, and the name of its macro in ``sections.html``.
        title: Its heading.
        lead: What it shows, in a sentence below the heading.
        content: The macro's arguments; an error of ours is shown in the section's place.
    """

    key: str
    title: str
    lead: str
    content: Callable[[Results], dict[str, Any]]


def page(results: Results) -> str:
    """The page as HTML; a section that cannot be written says why."""
    return render(
        "page.html",
        title=f"{results.best.method} on {results.data}",
        byline=_byline(results),
        verdict=_verdict(results),
        cautions=cautions(results),
        overview=figures.overview_panels(results),
        overview_legend=figures.overview_legend(results),
        sections=[_rendered(section, results) for section in SECTIONS],
    )


def write_page(*folders: Path | str, output: Path | str = "report.html", split: str = "test") -> Path:
    """Write the page of ``ccl report html``.

    Args:
        folders: Run folders, or folders of them; none for the newest that holds an evaluated run.
        output: The file.
        split: Whose evaluation to show: "test" or "val".

    Returns:
        The file.

    Raises:
        DataError: no such folder, or nothing in it has been evaluated.
    """
    path = Path(output)
    write_text(path, page(load_results([Path(folder) for folder in folders], split)))
    return path


def render(template: str, **context: Any) -> str:
    """A page of a template of this package, every value escaped."""
    return _templates().get_template(template).render(context)


@cache
def _templates() -> Environment:
    loader = PackageLoader("ccl_cli.report")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"version": __version__, "colours": Markup(page_colours())}
    environment.filters["base64"] = lambda jpeg: base64.b64encode(jpeg).decode()
    environment.filters["percent"] = correspondence.percent
    environment.filters["numeric_columns"] = _numeric_columns
    environment.filters["svg"] = lambda panel: Markup(inline(panel))
    return environment


def _rendered(section: Section, results: Results) -> dict[str, str]:
    entry = {"key": section.key, "title": section.title, "lead": section.lead}
    try:
        content = section.content(results)
        macro = getattr(_templates().get_template("sections.html").module, section.key)
        return entry | {"body": macro(**content)}
    except CclError as error:
        return entry | {"error": _sentences(error)}


def _sentences(error: CclError) -> str:
    return clean(f"{error.message} {error.hint or ''}")


def _numeric_columns(lines: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns below a header hold numbers, intervals or nothing: those are aligned to the right."""
    return [all(map(_NUMBERS.fullmatch, column)) for column in zip(*lines[1:], strict=True)]


def _byline(results: Results) -> str:
    """How much the page is about."""
    cells = [cell for cell in results.ranked() if cell.runs]
    runs, methods = len(results.data_runs), len({cell.method for cell in cells})
    seeds = max(cell.n for cell in cells)
    counts = [(runs, "run"), (methods, "method"), (seeds, "seed")]
    texts = [f"{count} {noun}{'s' * (count != 1)}" for count, noun in counts]
    return f"{', '.join(texts)}; scored on the {results.split} videos of {results.data}."


def _verdict(results: Results) -> list[str]:
    """The gain from the teachers, and what the best method reached."""
    best, base = results.best, results.baseline
    line = f"{best.label} reaches {_mean(best)} % {METRICS[results.metric][1]} on {results.data}"
    line += f" and the baseline {_mean(base)} %." if base else "."
    lines = [*finding(results), line]
    if best.method != main_method(results):
        pairs = _against_baseline(results, results.metric)
        lines += [pair.sentence for pair in pairs if pair.setup == best.setup]
    return lines


def _mean(cell: Cell) -> str:
    spread = "" if cell.sd is None else f" ± {cell.sd:.1f}"
    return f"{cell.mean or 0.0:.1f}{spread}"


def cautions(results: Results) -> list[str]:
    """What was chosen, and on which videos."""
    lines = []
    if sum(cell.mean is not None for cell in results.ranked()) > 1:
        lines.append(
            f"{results.best_run.label} is named because it is the best on these very {results.split} videos, "
            "which flatters it."
        )
    for choice, count in metadata.checkpoint_choices(results).items():
        if choice != "last":
            lines.append(
                f"In {count} of {len(results.data_runs)} runs the checkpoint is not the last one: it was "
                f"chosen ({choice}), and if that was on these videos, the figures flatter it."
            )
    return lines


def _against_baseline(results: Results, metric: str) -> list[Comparison]:
    """The best method against the baseline on the page's data; none without a baseline or the metric."""
    available = any((cell.data, cell.metric) == (results.data, metric) for cell in results.cells.values())
    if results.baseline is None or not available:
        return []
    pairs = compare(results, results.best.method, BASELINE, metric)
    return [pair for pair in pairs if pair.data == results.data]


def _from_best_run(results: Results, text: str) -> str:
    return f"{text} From {results.best_run.label}, seed {results.best_run.seed}."


# ---- sections


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
        if (pairs := _against_baseline(results, metric))
    ]
    return {"by_metric": by_metric, "caution": CAUTION}


def _curves(results: Results) -> dict[str, Any]:
    dashed = ", the dashed one the baseline" if results.baseline else ""
    text = f"The thick line is {results.best.method}{dashed}."
    colours = [(results.colour_name(method), method) for method in figures.curve_methods(results)]
    by_setup = list(figures.curve_panels(results).values())
    return {"text": text, "colours": colours, "by_setup": by_setup}


def _classes(results: Results) -> dict[str, Any]:
    best, by_setup, errors = results.best.setup, [], []
    for setup in sorted(results.setups, key=lambda setup: setup != best):
        entry: dict[str, Any] = {"title": f"Setup {setup}" if setup else "Classes", "open": setup == best}
        try:
            gains = figures.class_gains(results, setup)
            entry |= {
                "sentences": [gain.sentence for gain in gains],
                "panels": figures.class_panels(gains),
            }
        except DataError as error:  # the other setups can still be shown
            errors.append(error)
            entry["error"] = _sentences(error)
        by_setup.append(entry)
    if len(errors) == len(by_setup):
        raise errors[0]
    return {"by_setup": by_setup}


def _confusion(results: Results) -> dict[str, Any]:
    text = "Rows: the true class; columns: the predicted class. Full colour: all videos of the class."
    return {
        "text": _from_best_run(results, text),
        "panel": video_figures.confusion_panel(results),
        "mistakes": video_figures.frequent_mistakes(results),
    }


def _gallery(results: Results) -> dict[str, Any]:
    text = (
        f"Left: a {results.split} video; then the training videos that are nearest by cosine. A tick and "
        "green: of the query's class; a cross and orange: of another. The queries are evenly spread over "
        "the classes, not chosen by outcome."
    )
    return {"text": _from_best_run(results, text), "retrievals": video_figures.nearest_videos(results)}


def _tsne(results: Results) -> dict[str, Any]:
    text = "Near points have similar features; distances between groups and their sizes mean little."
    return {"text": _from_best_run(results, text), "panels": video_figures.tsne_panels(results)}


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
    evaluated = f"Videos evaluated of {results.data}", metadata.evaluated_videos(results)
    inputs = "What the teachers got from the training videos", metadata.teacher_inputs(results)
    return {"tables": [evaluated, inputs], "unreadable": metadata.unreadable_videos(results)}


def _origin(results: Results) -> dict[str, Any]:
    return {
        "runs": metadata.all_runs(results),
        "run": results.best_run,
        "recipe": metadata.recipe_text(results.best_run),
        "versions": metadata.versions(results),
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
