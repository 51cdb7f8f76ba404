"""Plots as rows of panels, drawn by matplotlib: as SVG within a page, or as a PNG, SVG or PDF file."""

from __future__ import annotations

import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ccl_cli.report.runs import clean
from ccl_cli.report.style import DPI, FONT, LIGHT, MEASURED_IN, style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure, FigureBase

SUFFIXES = (".png", ".svg", ".pdf")
_MARGIN = 12
_BARS, _BAR, _NAME = 380, 16, 18  # pixels, pixels, letters
_TIPS = "tips"  # begins the id of a group that holds the tooltips of its shapes
_PHONE = 440  # pixels; a wider plot scrolls on a phone, where it would shrink until nobody can read it
_VARIABLES = {value: f"var(--{name})" for name, value in LIGHT.items()}
_COLOUR = re.compile("|".join(_VARIABLES))
# In matplotlib's SVG: a style sheet would hold for the whole page, namespaces would lengthen every name.
_UNUSED = re.compile(
    r'<metadata>.*?</metadata>|<style.*?</style>|xmlns(:xlink)?="[^"]*"|(?<=>)\s+(?=<)', re.DOTALL
)
_SHAPES = ("use", "path", "text")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        text: What it shows, for readers who cannot see it.
        width: In CSS pixels.
        height: In CSS pixels.
        draw: Draws it.
        heading: Stands above it.
    """

    text: str
    width: float
    height: float
    draw: Callable[[Axes], None]
    heading: str = ""


PanelGrid = Sequence[Sequence[Panel]]  # rows of panels


def in_rows(panels: Sequence[Panel], columns: int) -> list[Sequence[Panel]]:
    """Panels side by side, so many in a row."""
    return [panels[begin : begin + columns] for begin in range(0, len(panels), columns)]


def inline(panel: Panel) -> str:
    """An ``svg`` element for a page that defines the colours."""
    with style():
        return _page_svg(_figure([[panel]]), clean(panel.text))


def figure(grid: PanelGrid) -> Figure:
    """The panels as one figure of matplotlib."""
    with style():
        return _figure(grid)


def save(grid: PanelGrid, path: Path, suffix: str) -> None:
    """Write panels to a file, on a white ground.

    Args:
        grid: The panels.
        path: The file.
        suffix: One of :data:`SUFFIXES`.
    """
    with style():
        whole, text = _figure(grid), clean("; ".join(panel.text for row in grid for panel in row))
        options: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": _MARGIN / DPI}
        options["facecolor"] = LIGHT["paper"]
        if suffix == ".svg":
            path.write_text(_file_svg(whole, text, **options), encoding="utf-8")
        else:
            dated = {".png": "Software", ".pdf": "CreationDate"}[suffix]
            metadata = {"Title": text, dated: None}  # the same plot is the same file
            whole.savefig(path, format=suffix[1:], dpi=2 * DPI, metadata=metadata, **options)


def legend(entries: Sequence[tuple[str, str]], width: float, columns: int = 3) -> Panel:
    """Names and their colours.

    Args:
        entries: Names, and colours as matplotlib knows them.
        width: In CSS pixels.
        columns: Names in a line.
    """

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Patch

        axes.axis("off")
        letters = int(width / columns / 7) - 4
        names = [shortened(name, letters) for name, _ in entries]
        patches = [Patch(color=colour) for _, colour in entries]
        mode = "expand" if len(entries) > columns else None  # names below each other
        drawn = axes.legend(patches, names, loc="upper left", ncols=columns, handlelength=1.2, mode=mode)
        for text, (name, _) in zip(drawn.get_texts(), entries, strict=True):
            tips(text, [name])

    names = ", ".join(name for name, _ in entries)
    return Panel(f"Colours: {names}", width, 12 + 17 * -(-len(entries) // columns), draw)


def bar_panel(text: str, heading: str, count: int, draw: Callable[[Axes], None]) -> Panel:
    """A panel as high as its bars need."""
    return Panel(text, _BARS, 64 + _BAR * count, draw, heading)


def bars(axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> BarContainer:
    """Horizontal bars, the first on top, with their names beside them."""
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
    """A vertical axis for positive values between these."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(yscale="log", ylim=(low / 1.1, high * 1.1))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if high / low < 1000 else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.9g}")


def beside(axes: Axes, place: int, text: str, colour: str = LIGHT["ink"]) -> None:
    """Text at the right end of a row."""
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(text, (1, place), (9, 0), va="center", color=colour, annotation_clip=False, **where)


def canvas(axes: Axes, width: float, height: float) -> None:
    """Axes without lines or numbers, in pixels from the upper left corner."""
    axes.axis("off")
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", anchor="NW")


def picture(
    axes: Axes, jpeg: bytes | None, x: float, y: float, side: float, colour: str, line: float
) -> None:
    """A square picture, or the place of one, in a frame; on a canvas."""
    from matplotlib.patches import Rectangle
    from PIL import Image

    if jpeg:
        with Image.open(io.BytesIO(jpeg)) as image:
            pixels = image.resize((round(2 * side),) * 2, Image.Resampling.BICUBIC)
        axes.imshow(pixels, extent=(x, x + side, y + side, y), interpolation="none")
    else:
        axes.text(x + side / 2, y + side / 2, "no picture", color=LIGHT["muted"], ha="center")
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=colour, linewidth=line))


def tips(artist: Artist, texts: Iterable[str]) -> None:
    """Texts that an SVG shows under the pointer: one for each thing that the artist draws, in order."""
    artist.set_gid(_TIPS + json.dumps([clean(text) for text in texts]))


def shortened(text: str, letters: int) -> str:
    """The text, cut to so many letters; Chinese and Japanese ones count twice."""
    text, room = clean(text), letters
    for place, letter in enumerate(text):
        room -= 1 + (unicodedata.east_asian_width(letter) in "WF")
        if room < 0:
            return f"{text[: place - 1].rstrip()}…"
    return text


def outermost(ranked: Sequence[_T], most: int) -> list[_T]:
    """The first and the last ones, if there are more than so many."""
    return [*ranked] if len(ranked) <= most else [*ranked[: most // 2], *ranked[-(most // 2) :]]


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
    """Parts of these sizes; what is left over stays empty."""
    rest = room - sum(sizes)
    ratios = [*sizes, rest] if rest > 0 else [*sizes]
    if len(ratios) == 1:
        return [whole]
    if down:
        parts = whole.subfigures(len(ratios), 1, height_ratios=ratios, hspace=0, squeeze=False)[:, 0]
    else:
        parts = whole.subfigures(1, len(ratios), width_ratios=ratios, wspace=0, squeeze=False)[0]
    return list(parts[: len(sizes)])


def _draw(part: FigureBase, panel: Panel) -> None:
    if panel.heading:
        part.suptitle(clean(panel.heading), x=0, ha="left")
    panel.draw(part.subplots())


# ---- SVG: tooltips, ids that differ from other plots', and in a page its colours


def _page_svg(figure: Figure, text: str) -> str:
    """An element in the page's colours and font."""
    root = _svg(figure, text)
    for element in root.iter():
        if "style" in element.attrib:
            style = _COLOUR.sub(lambda match: _VARIABLES[match[0]], element.attrib["style"])
            element.set("style", style.replace(f"'{MEASURED_IN}'", "var(--font)"))
    root.set("role", "img")
    width = float(root.get("width", 0))
    if width > _PHONE:
        root.set("style", f"min-width:{0.8 * width:.0f}px")
    return ET.tostring(root, encoding="unicode")


def _file_svg(figure: Figure, text: str, **options: Any) -> str:
    """A file of its own; ``options`` as of ``Figure.savefig``."""
    root = _svg(figure, text, **options)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    for element in root.iter("text"):
        element.set("style", element.get("style", "").replace(f"'{MEASURED_IN}'", FONT))
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _svg(figure: Figure, text: str, **options: Any) -> ET.Element:
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": text}):  # matplotlib's ids are hashes with this salt
        figure.savefig(file, format="svg", metadata={"Title": text, "Date": None}, **options)
    root = ET.fromstring(_UNUSED.sub("", file.getvalue()).replace("xlink:href", "href"))
    for group in root.iter("g"):
        name = group.attrib.pop("id", "")  # nothing refers to a group
        if name.startswith(_TIPS):
            _add_tips(group, json.loads(name[len(_TIPS) :]))
    for side in ("width", "height"):
        root.set(side, root.get(side, "").removesuffix("pt"))
    root.set("stroke-linejoin", "round")
    return root


def _add_tips(group: ET.Element, texts: list[str]) -> None:
    definitions = {shape for defs in group.iter("defs") for shape in defs.iter()}
    shapes = [each for each in group.iter() if each.tag in _SHAPES and each not in definitions]
    for shape, text in zip(shapes, texts, strict=True):
        ET.SubElement(shape, "title").text = text
