"""How each teacher goes with the classes: what it says of videos, what its embeddings tell (Figure 6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccl_cli.engine.runs import MANIFEST, SUMMARY, read_json
from ccl_cli.errors import CclError, DataError
from ccl_cli.report.collect import Run, clean
from ccl_cli.report.drawing import Drawing, Line, Mark, Picture, Text, frame, in_rows, rectangle, shortened
from ccl_cli.report.gallery import picture_of
from ccl_cli.report.study import Study

if TYPE_CHECKING:
    from ccl_cli.data.manifest import Video
    from ccl_cli.engine.correspondence import Correspondence, Sample

COLOURS = {"highly": "good", "weakly": "s4", "not": "bad"}
_TILE, _CARD, _LINE = 96.0, 300.0, 15.0
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 380.0, 112.0, 76.0, 44.0, 16.0
_LEAST = 0.05  # percent: below, one decimal would say nothing


@dataclass(frozen=True)
class Card:
    """One video: its class, the verdict on that, its middle frame, the teacher's own classes in percent."""

    id: str
    label: str
    verdict: str
    top: tuple[tuple[str, float], ...]
    jpeg: bytes | None


@dataclass(frozen=True)
class Heard:
    """One teacher.

    Attributes:
        teacher: Its name.
        cards: What it says of a few videos.
        silent: Why there are none, or "".
        probe: Figures of ``ccl probe`` without the linear layer.
    """

    teacher: str
    cards: tuple[Card, ...]
    silent: str
    probe: Mapping[str, Any]

    @property
    def sentence(self) -> str:
        """How much its embeddings tell."""
        counts = ", ".join(f"{len(names)} {verdict}" for verdict, names in self.probe["verdicts"].items())
        test = self.probe["test"]
        return (
            f"It has something from {test['present']} of {test['videos']} videos. The nearest training "
            f"videos name {self.probe['knn']:.1f} % of them rightly; "
            f"always naming the largest class would be right for {self.probe['chance']:.1f} %. "
            f"Classes by how they are correlated: {counts}."
        )

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """A header, and a row for each class, the best first."""
        header = ("class", "correlated", "recall %", "95 % interval", "chance %", "videos")
        return [header, *(_row(name, each) for name, each in ranked(self.probe))]


@dataclass(frozen=True)
class Absent:
    """A teacher of which nothing is known, and why."""

    teacher: str
    reason: str


def figure(study: Study) -> Drawing:
    """All teachers below each other.

    Raises:
        DataError: there is none, or nothing is known of any.
    """
    found = [each for each in find(study) if isinstance(each, Heard)]
    rows: list[Drawing] = []
    for each in found:
        rows.append(Drawing(_WIDTH, 18, each.teacher, [Text(0, 14, each.teacher, 15)]))
        rows += [in_rows([*map(_card, each.cards)], 3, "Videos")] if each.cards else []
        rows.append(bars(each))
    return in_rows(rows, 1, "Audio-video correspondence")


def find(study: Study) -> list[Heard | Absent]:
    """Every teacher of the runs, the shown run's first; measured where that has not been done before.

    Raises:
        DataError: there is none, or nothing is known of any.
    """
    from ccl_cli.engine.correspondence import measure

    teachers = _by_teacher(study)
    found = [_kept(each, study.split) for each in teachers]
    lacking: dict[Path, list[str]] = defaultdict(list)
    for each, known in zip(teachers, found, strict=True):
        if known is None:
            lacking[each.run.folder].append(each.name)
    measured = {folder: measure(folder, names, study.split) for folder, names in lacking.items()}
    heard = [
        known or _shown(each.title, each.run, measured[each.run.folder][each.name])
        for each, known in zip(teachers, found, strict=True)
    ]
    if not any(isinstance(each, Heard) for each in heard):
        reasons = dict.fromkeys(each.reason for each in heard if isinstance(each, Absent))
        raise DataError(" ".join(reasons) or "None of these runs has a teacher.")
    return heard


def ranked(probe: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Classes with test videos, the highest recall first."""
    known = [(name, row) for name, row in probe["per_class"].items() if row["recall"] is not None]
    return sorted(known, key=lambda each: -each[1]["recall"])


def bars(heard: Heard) -> Drawing:
    """Recall of each class, and where chance would be."""
    rows = ranked(heard.probe)
    bottom = _TOP + _ROW * len(rows)
    room = _WIDTH - _LEFT - _RIGHT
    marks: list[Mark] = [Text(0, 14, "Recall by nearest neighbours (%); the stroke is chance", 13)]
    for value in (0, 50, 100):
        x = _LEFT + room * value / 100
        marks.append(Line([(x, _TOP - 6), (x, bottom)], "grid"))
        marks.append(Text(x, _TOP - 10, str(value), 11, "muted", "middle"))
    for place, (name, row) in enumerate(rows):
        marks += _bar(clean(name), row, _TOP + _ROW * place, room / 100)
    return Drawing(_WIDTH, bottom + 4, f"{heard.teacher}: {heard.sentence}", marks)


def percent(share: float) -> str:
    """A probability as it is written."""
    return f"{share:.1f}" if share >= _LEAST else "< 0.1"


@dataclass(frozen=True)
class _Teacher:
    """One teacher, by whatever names, in the runs that have it: folders and names."""

    title: str
    run: Run
    name: str
    places: tuple[tuple[Run, str], ...]


def _by_teacher(study: Study) -> list[_Teacher]:
    """Told apart by their fingerprints: what has one name in two runs may be two teachers."""
    runs = [run for run in (study.shown, *study.runs) if run.is_own(study.data)]
    if not runs:
        study.shown.check_own(study.data)
    places: dict[str, dict[Path, tuple[Run, str]]] = defaultdict(dict)
    for run in runs:
        for name, record in read_json(run.folder / SUMMARY).get("teachers", {}).items():
            places[str(record.get("fingerprint", name))].setdefault(run.folder, (run, name))
    firsts = {fingerprint: next(iter(having.values())) for fingerprint, having in places.items()}
    names = [name for _, name in firsts.values()]
    return [
        _Teacher(
            clean(name if names.count(name) == 1 else f"{name} ({fingerprint[-6:]})"),
            run,
            name,
            tuple(places[fingerprint].values()),
        )
        for fingerprint, (run, name) in firsts.items()
    ]


def _kept(teacher: _Teacher, split: str) -> Heard | None:
    from ccl_cli.engine.correspondence import kept

    for run, name in teacher.places:
        if found := kept(run.folder, name, split):
            return _heard(teacher.title, run, found)
    return None


def _shown(title: str, run: Run, found: Correspondence | CclError) -> Heard | Absent:
    if isinstance(found, CclError):
        return Absent(title, clean(f"{found.message} {found.hint or ''}"))
    return _heard(title, run, found)


def _heard(title: str, run: Run, found: Correspondence) -> Heard:
    videos = _videos(run.folder) if found.samples else {}
    silent = f"{title} {found.silent}: there is nothing it could say of single videos." * bool(found.silent)
    return Heard(title, tuple(_look(each, videos) for each in found.samples), silent, found.probe)


def _videos(folder: Path) -> dict[str, Video]:
    from ccl_cli.data.manifest import Manifest

    try:
        return {video.id: video for video in Manifest.load(folder / MANIFEST).videos}
    except CclError:
        return {}


def _look(sample: Sample, videos: Mapping[str, Video]) -> Card:
    top = tuple((clean(name), share) for name, share in sample.top)
    jpeg = picture_of(videos[sample.video]) if sample.video in videos else None
    return Card(clean(sample.video), clean(sample.label), sample.verdict, top, jpeg)


def _row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    interval = f"{row['low']:.0f} to {row['high']:.0f}"
    figures = (f"{row['recall']:.0f}", interval, f"{row['chance']:.0f}", str(row["videos"]))
    return clean(name), row["verdict"], *figures


def _card(card: Card) -> Drawing:
    """The picture, and beside it the teacher's own classes with bars as long as they are probable."""
    colour, left = COLOURS[card.verdict], _TILE + 12
    marks: list[Mark] = [
        Text(0, 12, shortened(card.label, _CARD, 13), 13, tip=card.label),
        Text(0, 27, f"{card.verdict} correlated", 11, "muted"),
    ]
    if card.jpeg:
        marks.append(Picture(0, 36, _TILE, _TILE, card.jpeg, card.id))
    else:
        marks.append(Text(_TILE / 2, 36 + _TILE / 2, "no picture", 11, "muted", "middle"))
    marks.append(frame(0, 36, _TILE, _TILE, colour, 3))
    for place, (name, share) in enumerate(card.top):
        y = 36 + _LINE * place
        marks.append(rectangle(left, y, (_CARD - left) * share / 100, _LINE - 3, "s0", 0.25))
        marks.append(Text(left + 3, y + 10, shortened(name, _CARD - left - 45, 11), 11, tip=name))
        marks.append(Text(_CARD - 2, y + 10, percent(share), 11, "muted", "end"))
    said = ", ".join(f"{name} {percent(share)} %" for name, share in card.top)
    title = f"{card.label}, {card.verdict} correlated: {said}"
    return Drawing(_CARD, 36 + max(_TILE, _LINE * len(card.top)), title, marks)


def _bar(name: str, row: Mapping[str, Any], y: float, per_percent: float) -> Iterator[Mark]:
    recall, verdict = row["recall"], row["verdict"]
    tip = f"{name}: {recall:.0f} % of {row['videos']} videos, {verdict} correlated"
    yield Text(_LEFT - 8, y + 11, shortened(name, _LEFT - 8, 11), 11, "ink", "end", tip=name)
    yield rectangle(_LEFT, y + 2, max(recall * per_percent, 1), _ROW - 4, COLOURS[verdict], tip=tip)
    at = _LEFT + row["chance"] * per_percent
    yield Line([(at, y + 1), (at, y + _ROW - 1)], "ink", 1.5)
    yield Text(_WIDTH, y + 11, f"{recall:.0f} {verdict}", 11, "muted", "end")
