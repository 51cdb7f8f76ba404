"""Videos that find their nearest training videos (Figure 5a of the paper)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccl_cli.errors import CclError, DataError
from ccl_cli.report.collect import clean
from ccl_cli.report.drawing import Drawing, Mark, Picture, Text, frame, shortened, sign
from ccl_cli.report.study import Study
from ccl_cli.report.views import views

if TYPE_CHECKING:
    from ccl_cli.data.location import Location
    from ccl_cli.data.manifest import Video

QUERIES, NEIGHBOURS = 8, 4
_SHORT_SIDE = 128
_TILE, _GAP = 96.0, 14.0


@dataclass(frozen=True)
class Item:
    """One video: its class, whether that is the query's, and its middle frame (None: it cannot be read)."""

    id: str
    label: str
    right: bool
    jpeg: bytes | None


@dataclass(frozen=True)
class Search:
    """A query and its nearest neighbours, the nearest first."""

    query: Item
    found: tuple[Item, ...]


def figure(study: Study) -> Drawing:
    """One row for each query."""
    searches = find(study)
    row = _TILE + 36
    marks: list[Mark] = [Text(0, 12, "Query", 12, "muted"), Text(_x(0), 12, "Nearest first", 12, "muted")]
    for number, search in enumerate(searches):
        marks += _tile(search.query, 0, 20 + row * number, query=True)
        for place, item in enumerate(search.found):
            marks += _tile(item, _x(place), 20 + row * number)
    title = f"Videos that {study.shown.label} finds"
    return Drawing(_x(NEIGHBOURS - 1) + _TILE, 20 + row * len(searches), title, marks)


def find(study: Study) -> list[Search]:
    """Nearest neighbours of a few queries: one video of each of some classes, evenly spread over the list.

    Raises:
        DataError: the videos are gone.
    """
    queries, gallery = views(study)
    firsts = [int(np.flatnonzero(queries.labels == label)[0]) for label in np.unique(queries.labels)]
    chosen = [firsts[round(at)] for at in np.linspace(0, len(firsts) - 1, min(QUERIES, len(firsts)))]
    nearest = np.argsort(-(queries.features[chosen] @ gallery.features.T), axis=1, kind="stable")
    names = [clean(name) for name in queries.classes]
    found = []
    for query, order in zip(chosen, nearest[:, :NEIGHBOURS].tolist(), strict=True):
        label = int(queries.labels[query])
        items = [_item(gallery.videos[n], names, int(gallery.labels[n]) == label) for n in order]
        found.append(Search(_item(queries.videos[query], names, True), tuple(items)))
    _check_pictures(found)
    return found


def thumbnail(path: Location, start: float | None = None, end: float | None = None) -> bytes:
    """The middle frame of a video, or of a stretch of it, as JPEG.

    Raises:
        DataError: it cannot be read.
    """
    from PIL import Image

    from ccl_cli.data.decode import frame_range, index_video, read_frames

    first, count = frame_range(index_video(path), start, end)
    frames = read_frames(path, first + count // 2, 1, short_side=_SHORT_SIDE).frames
    image = Image.fromarray(np.ascontiguousarray(frames[0].numpy()))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    file = io.BytesIO()
    image.crop((left, top, left + side, top + side)).save(file, "JPEG", quality=82)
    return file.getvalue()


def picture_of(video: Video) -> bytes | None:
    """Its middle frame as JPEG; None if it is gone or damaged: others can still be shown."""
    try:
        return thumbnail(video.path, video.start, video.end)
    except CclError:
        return None


def _item(video: Video, names: Sequence[str], right: bool) -> Item:
    return Item(clean(video.id), names[video.label], right, picture_of(video))


def _check_pictures(found: Sequence[Search]) -> None:
    items = [item for search in found for item in (search.query, *search.found)]
    if all(item.jpeg is None for item in items):
        raise DataError(
            f"No pictures to show: the videos cannot be read any more, for example '{items[0].id}'.",
            "Put the videos back where they were when the run was trained.",
        )


def _x(place: int) -> float:
    return (_TILE + _GAP) * (place + 1) + _GAP


def _tile(item: Item, x: float, y: float, query: bool = False) -> list[Mark]:
    colour = "muted" if query else "good" if item.right else "bad"
    marks: list[Mark] = [frame(x, y, _TILE, _TILE, colour, 1.5 if query else 4)]
    if item.jpeg:
        marks.insert(0, Picture(x, y, _TILE, _TILE, item.jpeg, item.id))
    else:
        marks.append(Text(x + _TILE / 2, y + _TILE / 2, "no picture", 11, "muted", "middle"))
    room = _TILE if query else _TILE - 16
    marks.append(Text(x, y + _TILE + 16, shortened(item.label, room, 11), 11, tip=item.label))
    return marks if query else [*marks, *sign(x + _TILE - 12, y + _TILE + 6, 12, item.right)]
