"""Retrieval gallery: videos and their nearest training videos (Figure 5a of the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccl_cli.errors import DataError
from ccl_cli.report.figures.panel import Panel, PanelGrid, canvas, picture, shortened
from ccl_cli.report.figures.predictions import predictions, unit
from ccl_cli.report.figures.style import LIGHT
from ccl_cli.report.figures.thumbnail import thumbnail
from ccl_cli.report.records.results import Results
from ccl_cli.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ccl_cli.data.manifest import Video

QUERIES, NEIGHBOURS = 8, 4
_TILE, _GAP, _ROW = 96, 14, 132  # pixels


@dataclass(frozen=True)
class Tile:
    """One video: class, whether it is the class of the query, and middle frame (None if unreadable)."""

    id: str
    label: str
    right: bool
    jpeg: bytes | None


@dataclass(frozen=True)
class Retrieval:
    """A query and its nearest neighbours, nearest first."""

    query: Tile
    neighbours: tuple[Tile, ...]


def gallery(results: Results) -> PanelGrid:
    """One row per query; raises the errors of :func:`nearest_videos`."""
    retrievals = nearest_videos(results)
    width, height = _tile_left(NEIGHBOURS), 20 + _ROW * len(retrievals)

    def draw(axes: Axes) -> None:
        canvas(axes, width, height)
        axes.text(0, 12, "Query", color=LIGHT["muted"])
        axes.text(_tile_left(0), 12, "Nearest first", color=LIGHT["muted"])
        for number, retrieval in enumerate(retrievals):
            y = 20 + _ROW * number
            _draw_tile(axes, retrieval.query, 0, y, LIGHT["muted"])
            for place, tile in enumerate(retrieval.neighbours):
                x = _tile_left(place)
                _draw_tile(axes, tile, x, y, LIGHT["good" if tile.right else "bad"])
                axes.text(x + _TILE, y + _TILE + 16, "✓" if tile.right else "✗", ha="right")

    return [[Panel(f"Videos that {results.best_run.label} finds", width, height, draw)]]


def nearest_videos(results: Results) -> list[Retrieval]:
    """Find the nearest training videos of a few queries, one query per class, evenly spread over the classes.

    Raises:
        DataError: none of the videos can be read.
    """
    queries, training = predictions(results, results.split), predictions(results, "train")
    firsts = np.unique(queries.labels, return_index=True)[1]
    chosen = firsts[np.linspace(0, len(firsts) - 1, min(QUERIES, len(firsts))).round().astype(int)]
    features = unit(queries.take(chosen).features)
    cosines = [features @ unit(block).T for block in training.feature_blocks()]
    nearest = np.argsort(-np.concatenate(cosines, axis=1), axis=1, kind="stable")
    names = [*map(one_line, queries.classes)]
    retrievals = []
    for query, order in zip(chosen.tolist(), nearest[:, :NEIGHBOURS].tolist(), strict=True):
        label = int(queries.labels[query])
        tiles = [
            _tile(training.videos[n], names[training.labels[n]], training.labels[n] == label) for n in order
        ]
        retrievals.append(Retrieval(_tile(queries.videos[query], names[label], True), tuple(tiles)))
    tiles = [tile for each in retrievals for tile in (each.query, *each.neighbours)]
    if all(tile.jpeg is None for tile in tiles):
        raise DataError(
            f"No pictures to show: the videos cannot be read any more, for example '{tiles[0].id}'.",
            "Put the videos back where they were when the run was trained.",
        )
    return retrievals


def _tile(video: Video, name: str, right: bool) -> Tile:
    return Tile(one_line(video.id), name, bool(right), thumbnail(video.path, video.start, video.end))


def _tile_left(place: int) -> int:
    return (_TILE + _GAP) * (place + 1) + _GAP


def _draw_tile(axes: Axes, tile: Tile, x: float, y: float, colour: str) -> None:
    picture(axes, tile.jpeg, x, y, _TILE, colour, 3)
    axes.text(x, y + _TILE + 16, shortened(tile.label, 12))
