"""Panels: the parts of a figure, drawn by matplotlib as SVG in a page or as a PNG, SVG or PDF file."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ccl_cli.report.figures.style import DPI, LIGHT, style
from ccl_cli.report.figures.svg import file_svg, page_svg, tips
from ccl_cli.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure, FigureBase

SUFFIXES = (".png", ".svg", ".pdf")
MAX_CLASSES = 60  # of more classes, bar charts show only the highest and the lowest
_MARGIN = 12
_BARS, _BAR, _NAME = 380, 16, 18  # pixels, pixels, characters
_T = TypeVar("_T")


@dataclass(frozen=True)
class Panel:
    """One plot with its own axes.

    Attributes:
        text: Description for screen readers.
        width: Width in CSS pixels.
        height: Height in CSS pixels.
        draw: Function that draws into the axes.
        heading: Heading above the axes.
    """

    text: str
    width: float
    height: float
    draw: Callable[[Axes], None]
    heading: str = ""


PanelGrid = Sequence[Sequence[Panel]]  # rows of panels


def in_rows(panels: Sequence[Panel], columns: int) -> list[Sequence[Panel]]:
    """Arrange panels in rows of ``columns``."""
    return [panels[begin : begin + columns] for begin in range(0, len(panels), columns)]


def inline(panel: Panel) -> str:
    """Draw a panel as an ``svg`` element for a page that defines the colours."""
    with style():
        return page_svg(_figure([[panel]]), one_line(panel.text))


def figure(grid: PanelGrid) -> Figure:
    """Draw panels as one matplotlib figure."""
    with style():
        return _figure(grid)


def save(grid: PanelGrid, path: Path, suffix: str) -> None:
    """Draw panels on a white background and write them in the format of a suffix of :data:`SUFFIXES`."""
    with style():
        whole, text = _figure(grid), one_line("; ".join(panel.text for row in grid for panel in row))
        options: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": _MARGIN / DPI}
        options["facecolor"] = LIGHT["paper"]
        if suffix == ".svg":
            path.write_text(file_svg(whole, text, **options), encoding="utf-8")
        else:
            dated = {".png": "Software", ".pdf": "CreationDate"}[suffix]
            metadata = {"Title": text, dated: None}  # equal figures give equal files
            whole.savefig(path, format=suffix[1:], dpi=2 * DPI, metadata=metadata, **options)


def legend(entries: Sequence[tuple[str, str]], width: float, columns: int = 3) -> Panel:
    """Panel with a legend: names and matplotlib colours, ``columns`` per line."""

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Patch

        axes.axis("off")
        characters = int(width / columns / 7) - 4
        names = [shortened(name, characters) for name, _ in entries]
        patches = [Patch(color=colour) for _, colour in entries]
        mode = "expand" if len(entries) > columns else None  # else one name per line
        drawn = axes.legend(patches, names, loc="upper left", ncols=columns, handlelength=1.2, mode=mode)
        for text, (name, _) in zip(drawn.get_texts(), entries, strict=True):
            tips(text, [name])

    names = ", ".join(name for name, _ in entries)
    return Panel(f"Colours: {names}", width, 12 + 17 * -(-len(entries) // columns), draw)


def bar_panel(text: str, heading: str, count: int, draw: Callable[[Axes], None]) -> Panel:
    """Panel with a height for ``count`` bars."""
    return Panel(text, _BARS, 64 + _BAR * count, draw, heading)


def bars(axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> BarContainer:
    """Draw horizontal bars from top to bottom, with their names on the left."""
    places = range(len(names))
    drawn = axes.barh(places, values, height=0.75, color=colours)
    short = [shortened(name, _NAME) for name in names]
    axes.set_yticks(places, short, color=LIGHT["ink"])
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        tips(label, [name])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.xaxis.set_ticks_position("top")
    return drawn


def logarithmic(axes: Axes, low: float, high: float) -> None:
    """Make the vertical axis logarithmic, for positive values from ``low`` to ``high``."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(yscale="log", ylim=(low / 1.1, high * 1.1))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if high / low < 1000 else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.9g}")


def beside(axes: Axes, place: int, text: str, colour: str = LIGHT["ink"]) -> None:
    """Write text to the right of a row."""
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(text, (1, place), (9, 0), va="center", color=colour, annotation_clip=False, **where)


def canvas(axes: Axes, width: float, height: float) -> None:
    """Turn axes into a canvas without frame and ticks, in pixels from the upper left corner."""
    axes.axis("off")
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", anchor="NW")


def picture(
    axes: Axes, jpeg: bytes | None, x: float, y: float, side: float, colour: str, line: float
) -> None:
    """Draw a square picture, or a placeholder, with a frame on a canvas."""
    from matplotlib.patches import Rectangle
    from PIL import Image

    if jpeg:
        with Image.open(io.BytesIO(jpeg)) as image:
            pixels = image.resize((round(2 * side),) * 2, Image.Resampling.BICUBIC)
        axes.imshow(pixels, extent=(x, x + side, y + side, y), interpolation="none")
    else:
        axes.text(x + side / 2, y + side / 2, "no picture", color=LIGHT["muted"], ha="center")
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=colour, linewidth=line))


def shortened(text: str, characters: int) -> str:
    """Truncate text to a number of characters; wide (East Asian) characters count twice."""
    text, room = one_line(text), characters
    for place, letter in enumerate(text):
        room -= 1 + (unicodedata.east_asian_width(letter) in "WF")
        if room < 0:
            return f"{text[: place - 1].rstrip()}…"
    return text


def outermost(ranked: Sequence[_T]) -> list[_T]:
    """Return the first and the last items of a list with more than :data:`MAX_CLASSES` items."""
    half = MAX_CLASSES // 2
    return [*ranked] if len(ranked) <= MAX_CLASSES else [*ranked[:half], *ranked[-half:]]


def _figure(rows: PanelGrid) -> Figure:
    from matplotlib.figure import Figure

    heights = [max(panel.height for panel in row) for row in rows]
    width, height = max(sum(panel.width for panel in row) for row in rows), sum(heights)
    figure = Figure(figsize=(width / DPI, height / DPI), layout="constrained")
    for band, row, tall in zip(_split(figure, heights, height, down=True), rows, heights, strict=True):
        for part, panel in zip(_split(band, [each.width for each in row], width), row, strict=True):
            _draw(_split(part, [panel.height], tall, down=True)[0], panel)
    return figure


def _split(whole: FigureBase, sizes: Sequence[float], room: float, down: bool = False) -> list[Any]:
    """Divide a figure into parts of these sizes; remaining room stays empty."""
    rest = room - sum(sizes)
    ratios = [*sizes, rest] if rest > 0 else [*sizes]
    if len(ratios) == 1:
        return [whole]
    if down:
        parts = whole.subfigures(len(ratios), 1, height_ratios=ratios, hspace=0, squeeze=False)
    else:
        parts = whole.subfigures(1, len(ratios), width_ratios=ratios, wspace=0, squeeze=False)
    return list(parts.ravel()[: len(sizes)])


def _draw(part: FigureBase, panel: Panel) -> None:
    if panel.heading:
        part.suptitle(one_line(panel.heading), x=0, ha="left")
    panel.draw(part.subplots())
