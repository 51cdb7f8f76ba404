"""HTML page of ``ccl report html``: one self-contained file."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from ccl_cli.errors import CclError
from ccl_cli.report.figures.overview import overview_legend, overview_panels
from ccl_cli.report.page.render import render, render_macro
from ccl_cli.report.page.sections import SECTIONS, Section, best_against_baseline, message_of
from ccl_cli.report.records import provenance
from ccl_cli.report.records.conclusion import conclusion, main_method
from ccl_cli.report.records.results import Cell, Results, load_results
from ccl_cli.report.records.run import METRICS
from ccl_cli.utils.files import write_text


def page(results: Results) -> str:
    """Render the page as HTML; a section without data shows the reason instead."""
    # The t-SNE comes first, because this process is still small while that of the t-SNE runs.
    rendered = {
        each.key: _rendered(each, results) for each in sorted(SECTIONS, key=lambda each: each.key != "tsne")
    }
    return render(
        "page.html",
        title=f"{results.best.method} on {results.data}",
        byline=_byline(results),
        verdict=_verdict(results),
        cautions=cautions(results),
        overview=overview_panels(results),
        overview_legend=overview_legend(results),
        sections=[rendered[section.key] for section in SECTIONS],
    )


def write_page(*folders: Path | str, output: Path | str = "report.html", split: str = "test") -> Path:
    """Write the page of ``ccl report html``.

    Args:
        folders: Run folders, or folders of runs. Default: the newest folder that contains an evaluated run.
        output: File to write.
        split: Evaluated split to show: "test" or "val".

    Returns:
        Path of the file.

    Raises:
        DataError: a folder does not exist, or none of the runs has been evaluated.
    """
    path = Path(output)
    write_text(path, page(load_results([Path(folder) for folder in folders], split)))
    return path


def _rendered(section: Section, results: Results) -> dict[str, str]:
    entry = {"key": section.key, "title": section.title}
    try:
        body = render_macro("sections.html", section.key, results=results, **section.content(results))
    except CclError as error:
        return entry | {"error": message_of(error)}
    return entry | {"body": Markup(body)}


def _byline(results: Results) -> str:
    """Number of runs, methods and seeds, and the evaluated videos."""
    cells = [cell for cell in results.ranked() if cell.runs]
    runs, methods = len(results.data_runs), len({cell.method for cell in cells})
    seeds = max(cell.n for cell in cells)
    counts = [(runs, "run"), (methods, "method"), (seeds, "seed")]
    texts = [f"{count} {noun}{'s' if count != 1 else ''}" for count, noun in counts]
    return f"{', '.join(texts)}; evaluated on the {results.split} videos of {results.data}."


def _verdict(results: Results) -> list[str]:
    """The gain from the teachers, and the results of the best method and of the baseline."""
    best, base = results.best, results.baseline
    line = f"{best.label} reaches {_mean(best)} % {METRICS[results.metric][1]} on {results.data}"
    line += f" and the baseline {_mean(base)} %." if base else "."
    lines = [*conclusion(results), line]
    if best.method != main_method(results):
        pairs = best_against_baseline(results, results.metric)
        lines += [pair.sentence for pair in pairs if pair.setup == best.setup]
    return lines


def _mean(cell: Cell) -> str:
    spread = "" if cell.sd is None else f" ± {cell.sd:.1f}"
    return f"{cell.mean or 0.0:.1f}{spread}"


def cautions(results: Results) -> list[str]:
    """Warnings of selection bias: the best run and checkpoints may have been selected on these videos."""
    lines = []
    if sum(cell.mean is not None for cell in results.ranked()) > 1:
        lines.append(
            f"{results.best_run.label} was selected as the best on these {results.split} videos, so its "
            "result is biased upwards."
        )
    choices = provenance.checkpoint_choices(results)
    lines += [
        f"{count} of {len(results.data_runs)} runs were evaluated at a selected checkpoint ({choice}), not "
        "at the last one. If it was selected on these videos, the results are biased upwards."
        for choice, count in choices.items()
        if choice != "last"
    ]
    return lines
