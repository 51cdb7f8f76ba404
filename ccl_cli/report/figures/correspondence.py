"""Audio-video correspondence: predictions of each teacher, and recall of its embeddings (Figure 6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccl_cli.errors import CclError, DataError
from ccl_cli.report.figures.panel import (
    Panel,
    PanelGrid,
    bar_panel,
    bars,
    beside,
    canvas,
    in_rows,
    outermost,
    picture,
    shortened,
)
from ccl_cli.report.figures.style import LIGHT
from ccl_cli.report.figures.thumbnail import thumbnail
from ccl_cli.report.records.results import Results
from ccl_cli.report.records.run import Run
from ccl_cli.training.run.folder import SUMMARY, read_json
from ccl_cli.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ccl_cli.data.manifest import Video
    from ccl_cli.evaluation.correspondence_cache import Correspondence, Sample

_COLOURS = {"highly": LIGHT["good"], "weakly": LIGHT["s7"], "not": LIGHT["bad"]}
_TILE, _CARD, _LINE = 96, 300, 15
_MAX_CLASSES = 60  # more classes: only the highest and the lowest are drawn
_MIN_SHARE = 0.05  # percent; smaller shares are shown as < 0.1


@dataclass(frozen=True)
class Card:
    """One video: its class, verdict on that class, the teacher's predictions in percent, middle frame."""

    id: str
    label: str
    verdict: str
    top: tuple[tuple[str, float], ...]
    jpeg: bytes | None


@dataclass(frozen=True)
class TeacherReport:
    """Results of one teacher.

    Attributes:
        teacher: Name of the teacher.
        cards: Predictions of the teacher's own classifier for a few videos.
        silent: Reason for having no predictions, or "".
        probe: Results of ``ccl teachers probe`` without the linear classifier.
    """

    teacher: str
    cards: tuple[Card, ...]
    silent: str
    probe: Mapping[str, Any]

    @property
    def sentence(self) -> str:
        """Summary of the results."""
        counts = ", ".join(f"{len(names)} {verdict}" for verdict, names in self.probe["verdicts"].items())
        test = self.probe["test"]
        return (
            f"{test['present']} of {test['videos']} videos have an embedding. A nearest-neighbour classifier "
            f"on the embeddings is right for {self.probe['knn']:.1f} % of them; always predicting the "
            f"largest class would be right for {self.probe['chance']:.1f} %. "
            f"Classes by correlation: {counts}."
        )

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Table of the classes, highest recall first."""
        header = ("class", "correlated", "recall %", "95 % interval", "chance %", "videos")
        return [header, *(_row(name, each) for name, each in ranked(self.probe))]


@dataclass(frozen=True)
class MissingTeacher:
    """A teacher without results, and the reason."""

    teacher: str
    reason: str


def correspondence(results: Results) -> PanelGrid:
    """Draw the results of all teachers.

    Raises:
        DataError: there are no teachers, or none has results.
    """
    rows: list[Sequence[Panel]] = []
    for each in teachers(results):
        if isinstance(each, TeacherReport):
            rows.append([_title(each.teacher)])
            rows += in_rows([*map(_card, each.cards)], 3)
            rows.append([recall_panel(each)])
    return rows


def teachers(results: Results) -> list[TeacherReport | MissingTeacher]:
    """Results of every teacher, those of the best run first; computed if they are not cached.

    Raises:
        DataError: there are no teachers, or none has results.
    """
    from ccl_cli.evaluation.correspondence_cache import cached_correspondence

    distinct = _teachers(results)
    outcomes: dict[_Teacher, tuple[Run, Correspondence | CclError]] = {}
    unmeasured: dict[Path, list[_Teacher]] = defaultdict(list)
    for teacher in distinct:
        cached = (
            (run, cached_correspondence(run.folder, name, results.split)) for run, name in teacher.places
        )
        run, result = next(((run, each) for run, each in cached if each), (teacher.run, None))
        if result:
            outcomes[teacher] = run, result
        else:
            unmeasured[run.folder].append(teacher)
    for folder, lacking in unmeasured.items():
        from ccl_cli.evaluation.correspondence import measure  # imports torch

        by_name = measure(folder, [each.name for each in lacking], results.split)
        outcomes |= {each: (each.run, by_name[each.name]) for each in lacking}
    reports = [_report(each, *outcomes[each]) for each in distinct]
    if all(isinstance(each, MissingTeacher) for each in reports):
        reasons = dict.fromkeys(each.reason for each in reports if isinstance(each, MissingTeacher))
        raise DataError(" ".join(reasons) or "None of these runs has a teacher.")
    return reports


def ranked(probe: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Classes with test videos, highest recall first."""
    tested = [(name, row) for name, row in probe["per_class"].items() if row["recall"] is not None]
    return sorted(tested, key=lambda each: -each[1]["recall"])


def recall_panel(teacher: TeacherReport) -> Panel:
    """Draw the recall of each class and its chance level."""
    classes = ranked(teacher.probe)
    shown = outermost(classes, _MAX_CLASSES)
    values = [row["recall"] for _, row in shown]

    def draw(axes: Axes) -> None:
        colours = [_COLOURS[row["verdict"]] for _, row in shown]
        bars(axes, [name for name, _ in shown], values, colours)
        chances = [row["chance"] for _, row in shown]
        places = range(len(shown))
        axes.vlines(chances, [n - 0.45 for n in places], [n + 0.45 for n in places], LIGHT["ink"])
        few = f"{_MAX_CLASSES} of {len(classes):,} classes, highest and lowest; "
        note = few * (len(shown) < len(classes)) + "black lines: chance"
        axes.set(xlim=(0, 100), xticks=[0, 50, 100], xlabel=note)
        for place, (_, row) in enumerate(shown):
            beside(axes, place, f"{row['recall']:.0f} {row['verdict']}", LIGHT["muted"])

    text = f"{teacher.teacher}: {teacher.sentence}"
    return bar_panel(text, "Recall by nearest neighbours (%)", len(shown), draw)


def percent(share: float) -> str:
    """Format a probability, given in percent."""
    return f"{share:.1f}" if share >= _MIN_SHARE else "< 0.1"


@dataclass(frozen=True, eq=False)
class _Teacher:
    """One teacher, with all runs that use it and its name in each of them."""

    title: str
    places: tuple[tuple[Run, str], ...]

    @property
    def run(self) -> Run:
        return self.places[0][0]

    @property
    def name(self) -> str:
        return self.places[0][1]


def _teachers(results: Results) -> list[_Teacher]:
    """Distinguish teachers by fingerprint, because one name may stand for different teachers in two runs."""
    runs = [run for run in (results.best_run, *results.data_runs) if run.evaluates_own_videos(results.data)]
    if not runs:
        results.best_run.check_own_videos(results.data)
    places: dict[str, dict[Path, tuple[Run, str]]] = defaultdict(dict)
    for run in runs:
        for name, record in read_json(run.folder / SUMMARY).get("teachers", {}).items():
            places[str(record.get("fingerprint", name))].setdefault(run.folder, (run, name))
    by_fingerprint = {fingerprint: tuple(by_folder.values()) for fingerprint, by_folder in places.items()}
    names = [of_teacher[0][1] for of_teacher in by_fingerprint.values()]
    return [
        _Teacher(one_line(name if names.count(name) == 1 else f"{name} ({fingerprint[-6:]})"), of_teacher)
        for name, (fingerprint, of_teacher) in zip(names, by_fingerprint.items(), strict=True)
    ]


def _report(
    teacher: _Teacher, run: Run, outcome: Correspondence | CclError
) -> TeacherReport | MissingTeacher:
    title = teacher.title
    if isinstance(outcome, CclError):
        return MissingTeacher(title, one_line(f"{outcome.message} {outcome.hint or ''}"))
    videos = _videos(run.folder, {sample.video for sample in outcome.samples})
    silent = f"{title} {outcome.silent}, so it has no predictions for single videos." * bool(outcome.silent)
    cards = tuple(_card_of(sample, videos) for sample in outcome.samples)
    return TeacherReport(title, cards, silent, outcome.probe)


def _videos(folder: Path, ids: Collection[str]) -> dict[str, Video]:
    """Find videos by id in the manifest of a run; without a readable manifest there are none."""
    from ccl_cli.evaluation.model import run_manifest

    if not ids:
        return {}
    try:
        videos = run_manifest(folder).videos
    except CclError:
        return {}
    return {name: videos[row] for row, name in enumerate(videos.ids) if name in ids}


def _card_of(sample: Sample, videos: Mapping[str, Video]) -> Card:
    top = tuple((one_line(name), share) for name, share in sample.top)
    video = videos.get(sample.video)
    jpeg = thumbnail(video.path, video.start, video.end) if video else None
    return Card(one_line(sample.video), one_line(sample.label), sample.verdict, top, jpeg)


def _row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    interval = f"{row['low']:.0f} to {row['high']:.0f}"
    figures = (f"{row['recall']:.0f}", interval, f"{row['chance']:.0f}", str(row["videos"]))
    return one_line(name), row["verdict"], *figures


def _title(teacher: str) -> Panel:
    def draw(axes: Axes) -> None:
        canvas(axes, 3 * _CARD, 28)
        axes.text(0, 20, teacher, fontsize=15)

    return Panel(teacher, 3 * _CARD, 28, draw)


def _card(card: Card) -> Panel:
    """Draw a picture and, beside it, the teacher's predictions with bars for their probability."""
    left, top, colour = _TILE + 12, 36, _COLOURS[card.verdict]
    height = top + max(_TILE, _LINE * len(card.top)) + 12

    def draw(axes: Axes) -> None:
        canvas(axes, _CARD, height)
        axes.text(0, 12, shortened(card.label, 40), fontsize=13)
        axes.text(0, 27, f"{card.verdict} correlated", color=LIGHT["muted"])
        picture(axes, card.jpeg, 0, top, _TILE, colour, 3)
        room = _CARD - left
        lines = [top + _LINE * place for place in range(len(card.top))]
        lengths = [room * share / 100 for _, share in card.top]
        axes.barh(lines, lengths, _LINE - 3, left, align="edge", color=LIGHT["s0"], alpha=0.25)
        for y, (name, share) in zip(lines, card.top, strict=True):
            axes.text(left + 3, y + 10, shortened(name, 20))
            axes.text(_CARD - 2, y + 10, percent(share), ha="right", color=LIGHT["muted"])

    answers = ", ".join(f"{name} {percent(share)} %" for name, share in card.top)
    return Panel(f"{card.label}, {card.verdict} correlated: {answers}", _CARD + 16, height, draw)
