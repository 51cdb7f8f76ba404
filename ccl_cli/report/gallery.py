"""Videos that find their nearest training videos (Figure 5a of the paper)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccl_cli.errors import CclError, DataError
from ccl_cli.report.collect import clean
from ccl_cli.report.plot import Panel, Plot, canvas, picture, shortened
from ccl_cli.report.study import Study
from ccl_cli.report.style import LIGHT
from ccl_cli.report.views import views

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ccl_cli.data.manifest import Video
    from ccl_cli.data.video.storage import Location

QUERIES, NEIGHBOURS = 8, 4
_SHORT_SIDE = 128
_TILE, _GAP = 96, 14
_ROW = _TILE + 36


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


def figure(study: Study) -> Plot:
    """One row for each query."""
    searches = find(study)
    text = f"Videos that {study.shown.label} finds"
    width, height = _x(NEIGHBOURS), 20 + _ROW * len(searches)

    def draw(axes: Axes) -> None:
        canvas(axes, width, height)
        axes.text(0, 12, "Query", color=LIGHT["muted"])
        axes.text(_x(0), 12, "Nearest first", color=LIGHT["muted"])
        for number, search in enumerate(searches):
            y = 20 + _ROW * number
            _tile(axes, search.query, 0, y, LIGHT["muted"])
            for place, item in enumerate(search.found):
                _tile(axes, item, _x(place), y, LIGHT["good" if item.right else "bad"])
                axes.text(_x(place) + _TILE, y + _TILE + 16, "✓" if item.right else "✗", ha="right")

    return Plot(text, [[Panel(text, width, height, draw)]])


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

    from ccl_cli.data.video.reader import open_video, read_frames

    first, count = open_video(path).metadata.frame_range(start, end)
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


def _x(place: int) -> int:
    return (_TILE + _GAP) * (place + 1) + _GAP


def _tile(axes: Axes, item: Item, x: float, y: float, colour: str) -> None:
    picture(axes, item.jpeg, x, y, _TILE, colour, 3)
    axes.text(x, y + _TILE + 16, shortened(item.label, 12))
