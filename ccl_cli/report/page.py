"""One page that needs nothing else: figures, pictures and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from ccl_cli.errors import CclError, DataError
from ccl_cli.report import (
    classes,
    confusion,
    correspondence,
    curves,
    gallery,
    overview,
    paired,
    provenance,
    tsne,
)
from ccl_cli.report.collect import METRICS, clean
from ccl_cli.report.document import document, picture
from ccl_cli.report.finding import finding, main_method
from ccl_cli.report.layout import Block, Entry, blocks, footer
from ccl_cli.report.markup import Html, folded, joined, listing, sheet, table, tag
from ccl_cli.report.plot import Panel, inline
from ccl_cli.report.study import BASELINE, Study
from ccl_cli.report.table import tables

_WIDEST = 9  # columns of figures


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: Its address within the page.
        title: Its heading.
        body: Writes it; an error of ours is shown in its place.
    """

    key: str
    title: str
    body: Callable[[Study], Html]


def page(study: Study) -> str:
    """The page; a section that cannot be written says why.

    Args:
        study: The runs.
    """
    title = f"{study.best.method} on {study.data}"
    names = tag("ul", *(tag("li", tag("a", part.title, href=f"#{part.key}")) for part in SECTIONS))
    return document(
        title,
        joined([_verdict(study), _overview(study)]),
        tag("nav", tag("h2", "Contents"), names, aria_label="Contents"),
        joined(_section(part, study) for part in SECTIONS),
    )


def _section(part: Section, study: Study) -> Html:
    try:
        body = part.body(study)
    except CclError as error:
        body = _absent(error)
    return tag("section", tag("h2", part.title, id=f"{part.key}-title"), body, id=part.key)


def _absent(error: CclError) -> Html:
    return tag("p", clean(f"{error.message} {error.hint or ''}"), class_="absent")


def _verdict(study: Study) -> Html:
    """The gain from the teachers, the best method's figure, and the videos on which it was chosen."""
    added = finding(study)
    best, base = study.best, study.baseline
    name = METRICS[study.metric][1]
    words = [f"{best.method} {best.setup}".rstrip(), f"reaches {_figure(best.mean, best.sd)} % {name}"]
    words.append(f"on {study.data}")
    if base:
        words.append(f"and the baseline {_figure(base.mean, base.sd)} %")
    lines = [tag("p", line, class_="verdict" if place == 0 else None) for place, line in enumerate(added)]
    lines.append(tag("p", f"{' '.join(words)}.", class_=None if added else "verdict"))
    if best.method != main_method(study):
        lines += [tag("p", pair.sentence) for pair in _pairs(study, study.metric) if pair.setup == best.setup]
    return joined([*lines, *(tag("p", line, class_="note") for line in cautions(study))])


def _overview(study: Study) -> Html:
    note = tag("p", f"{overview.legend(study)}.", class_="note")
    return joined([_figures(overview.panels(study)), note])


def cautions(study: Study) -> list[str]:
    """What was chosen, and on which videos."""
    found = []
    if len([cell for cell in study.cells() if cell.mean is not None]) > 1:
        found.append(
            f"{study.best.label} is named because it is the best on these very {study.split} videos, which "
            "flatters it."
        )
    for chosen, count in provenance.selections(study).items():
        if chosen != "last":
            found.append(
                f"In {count} of {len(study.runs)} runs the checkpoint is not the last one: it was chosen "
                f"({chosen}), and if that was on these videos, the figures flatter it."
            )
    return found


def _pairs(study: Study, metric: str) -> list[paired.Paired]:
    """The best method against the baseline, on the study's data; none without a baseline or the figure."""
    there = any((cell.data, cell.metric) == (study.data, metric) for cell in study.summary.cells.values())
    if study.baseline is None or not there:
        return []
    found = paired.compare(study.summary, study.best.method, BASELINE, metric)
    return [pair for pair in found if pair.data == study.data]


def _headline(study: Study) -> Html:
    parts: list[str] = []
    for each in tables(study.summary):
        parts += [
            _block(block) for block in blocks(each, lambda block: len(block.header) <= _WIDEST, named=True)
        ]
        parts.append(tag("p", f"Bold: best of its column. {footer(each, study.summary)}", class_="note"))
    notes = [tag("h3", "What to know"), listing(study.summary.notes)] if study.summary.notes else []
    return joined([*parts, *notes])


def _block(block: Block) -> Html:
    depths = len(block.header[0])
    head = []
    for depth in range(1, depths + 1):
        first = tag("th", "method", scope="col", rowspan=str(depths) if depths > 1 else None)
        cells = [first] if depth == 1 else []
        for path, same in groupby(block.header, key=lambda header: header[:depth]):
            width = len(list(same))
            span = str(width) if width > 1 and depth < depths else None
            repeats = 1 if span or depth < depths else width
            cells += [tag("th", path[-1], scope="col" if not span else "colgroup", colspan=span)] * repeats
        head.append(tag("tr", *cells))
    rows = [[label, *map(_entry, row)] for label, row in zip(block.labels, block.entries, strict=True)]
    return sheet(head, rows, block.title)


def _entry(each: Entry) -> Html:
    mean = tag("strong", each.mean) if each.best else Html(joined([each.mean]))
    return joined([mean, " ", tag("span", each.spread, class_="spread")] if each.spread else [mean])


def _paired(study: Study) -> Html:
    if study.baseline is None:
        return tag("p", "There is no baseline among these runs to compare with.", class_="absent")
    parts = []
    for pairs in filter(None, (_pairs(study, metric) for metric in ("top1", "r1"))):
        header, *rows = paired.rows(pairs)
        parts += [table(header, rows, paired.title(pairs)), listing([pair.sentence for pair in pairs])]
    return joined([*parts, tag("p", paired.CAUTION, class_="note")])


def _curves(study: Study) -> Html:
    by_setup = curves.panels(study)
    said = (
        "Means over seeds; the bands are one standard deviation to either side. The thick line is "
        f"{study.best.method}, the dashed one the baseline."
    )
    colours = [
        tag("li", tag("i", style=f"background:var(--{study.colour_name(name)})"), name)
        for name in curves.methods(study)
    ]
    parts = [tag("p", said, class_="note"), tag("ul", *colours, class_="key")]
    return joined([*parts, *map(_figures, by_setup.values())])


def _classes(study: Study) -> Html:
    best = study.best.setup
    parts: list[str] = [
        tag(
            "p",
            "Top-1 of each class minus the baseline's, mean over seeds, in percentage points.",
            class_="note",
        )
    ]
    lacking: list[DataError] = []
    for setup in sorted(study.setups, key=lambda setup: setup != best):
        title = f"Setup {setup}" if setup else "Classes"
        try:
            found = classes.changes(study, setup)
        except DataError as error:  # the other setups can still be shown
            lacking.append(error)
            parts.append(folded(title, _absent(error), open_=setup == best))
            continue
        inner = [listing([change.sentence for change in found]), _figures(classes.panels(found))]
        parts.append(folded(title, *inner, open_=setup == best))
    if len(lacking) == len(study.setups):
        raise lacking[0]
    return joined(parts)


def _confusion(study: Study) -> Html:
    said = "Rows: the true class; columns: what the student says. Full colour: all videos of the class."
    wrong = [tag("h3", "Most frequent mistakes"), listing(confusion.mistakes(study))]
    return joined([_of_run(study, said), _figures([confusion.panel(study)]), *wrong])


def _gallery(study: Study) -> Html:
    said = (
        f"Left: a {study.split} video; then the training videos nearest to it by cosine. A tick and green: "
        "of the query's class; a cross and orange: of another. The queries are evenly spread over the "
        "classes, not chosen by outcome."
    )
    rows = [
        tag(
            "li", *(_tile(item, query=place == 0) for place, item in enumerate((search.query, *search.found)))
        )
        for search in gallery.find(study)
    ]
    return joined([_of_run(study, said), tag("ol", *rows, class_="gallery")])


def _tile(item: gallery.Item, query: bool) -> Html:
    mark = "" if query else "✓ " if item.right else "✗ "
    kind = "query" if query else "right" if item.right else "wrong"
    said = {"query": "query", "right": "same class", "wrong": "another class"}[kind]
    alt = f"{item.label} ({said}): {item.id}"
    shown = picture(item.jpeg, alt, item.id)
    return tag("figure", shown, tag("figcaption", f"{mark}{item.label}"), class_=kind)


def _tsne(study: Study) -> Html:
    said = "Near points have similar features; distances between groups and their sizes mean little."
    return joined([_of_run(study, said), _figures(tsne.panels(study))])


def _correspondence(study: Study) -> Html:
    from ccl_cli.evaluation.classifiers import RULE

    said = (
        "How far a teacher knows the classes before anything is distilled from it: for some videos, what its "
        "own classifier says, in percent; for each class, how many of its videos the nearest training videos "
        f"name rightly, by the teacher's embedding alone. {RULE}"
    )
    parts: list[str] = [tag("p", said, class_="note")]
    for each in correspondence.find(study):
        parts.append(tag("h3", each.teacher))
        if isinstance(each, correspondence.Absent):
            parts.append(tag("p", each.reason, class_="absent"))
            continue
        parts.append(tag("p", each.sentence))
        if each.silent:
            parts.append(tag("p", each.silent, class_="note"))
        if each.cards:
            parts.append(tag("ol", *map(_card, each.cards), class_="cards"))
        header, *rows = each.rows
        parts.append(folded("By class", _figures([correspondence.recall(each)]), open_=True))
        parts.append(folded("By class, as a table", table(header, rows)))
    return joined(parts)


def _card(card: correspondence.Card) -> Html:
    lines = [
        tag("li", tag("span", name), tag("em", correspondence.percent(share)), style=f"--share:{share:.1f}%")
        for name, share in card.top
    ]
    alt = f"{card.label}: {card.id}"
    head = [tag("strong", card.label), tag("small", f"{card.verdict} correlated")]
    inner = [picture(card.jpeg, alt, card.id), tag("ol", *lines)]
    return tag("li", tag("div", *head), *inner, class_=card.verdict)


def _data(study: Study) -> Html:
    parts: list[str] = []
    for rows, caption in (
        (provenance.evaluated(study), f"Videos evaluated of {study.data}"),
        (provenance.heard(study), "What the teachers got from the training videos"),
    ):
        if rows[1:]:
            parts.append(table(rows[0], rows[1:], caption))
    if bad := provenance.unreadable(study):
        parts.append(folded(f"{len(bad)} videos that could not be read", listing(bad)))
    return joined(parts)


def _origin(study: Study) -> Html:
    packages, everyone = provenance.versions(study), provenance.runs(study)
    return joined(
        [
            folded(f"{len(everyone) - 1} runs and their seeds", table(everyone[0], everyone[1:])),
            folded(
                f"Recipe of {study.shown.label}, seed {study.shown.seed}",
                tag("pre", provenance.recipe(study)),
            ),
            folded("Versions", table(packages[0], packages[1:])),
        ]
    )


def _of_run(study: Study, said: str) -> Html:
    run = study.shown
    return tag("p", f"{said} From {run.label}, seed {run.seed}.", class_="note")


def _figures(panels: Sequence[Panel]) -> Html:
    return tag("div", *(tag("figure", inline(panel)) for panel in panels), class_="figures")


def _figure(mean: float | None, sd: float | None) -> str:
    spread = "" if sd is None else f" ± {sd:.1f}"
    return f"{mean or 0.0:.1f}{spread}"


SECTIONS = (
    Section("results", "Results", _headline),
    Section("comparison", "Best method against the baseline", _paired),
    Section("curves", "Training curves", _curves),
    Section("classes", "Accuracy by class", _classes),
    Section("confusion", "Confusion matrix", _confusion),
    Section("gallery", "Retrieval gallery", _gallery),
    Section("tsne", "Features in the plane", _tsne),
    Section("correspondence", "Audio-video correspondence", _correspondence),
    Section("data", "Data", _data),
    Section("origin", "Recipe, versions and runs", _origin),
)
