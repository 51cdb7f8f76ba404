"""Pictures as lists of marks: written as SVG or painted as PNG, in the colours of a palette.

Lengths are CSS pixels; y grows downwards. A colour is a name of :data:`LIGHT` or ``#rrggbb``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#59636e",
    "grid": "#dce1e6",
    "good": "#1a7f37",
    "bad": "#c4520a",
    "s0": "#0b63ce",
    "s1": "#c4520a",
    "s2": "#1a7f37",
    "s3": "#9a3fb5",
    "s4": "#b08800",
    "s5": "#0b8a94",
    "s6": "#c2255c",
    "s7": "#6b7280",
}
DARK = {
    "paper": "#14181d",
    "ink": "#e8ecf0",
    "muted": "#9aa5b1",
    "grid": "#333b44",
    "good": "#4ac26b",
    "bad": "#f0883e",
    "s0": "#6cb0ff",
    "s1": "#f0883e",
    "s2": "#4ac26b",
    "s3": "#d28be8",
    "s4": "#e3c341",
    "s5": "#4fd0da",
    "s6": "#ff7ba9",
    "s7": "#a3adb8",
}
SERIES = 8


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: Sequence[Point]
    colour: str = "ink"
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Area:
    """A filled polygon; ``tip`` is shown under the pointer."""

    points: Sequence[Point]
    colour: str
    opacity: float = 1.0
    tip: str = ""


@dataclass(frozen=True)
class Dot:
    """A filled circle."""

    x: float
    y: float
    radius: float
    colour: str
    opacity: float = 1.0
    tip: str = ""


@dataclass(frozen=True)
class Text:
    """One line of text on a baseline at (x, y); ``turned``: it reads upwards."""

    x: float
    y: float
    text: str
    size: float = 12.0
    colour: str = "ink"
    anchor: Anchor = "start"
    turned: bool = False
    tip: str = ""


@dataclass(frozen=True)
class Picture:
    """A JPEG."""

    x: float
    y: float
    width: float
    height: float
    jpeg: bytes
    tip: str = ""


@dataclass(frozen=True)
class Placed:
    """A drawing within another."""

    x: float
    y: float
    drawing: Drawing


Mark = Line | Area | Dot | Text | Picture | Placed


@dataclass(frozen=True)
class Drawing:
    """A picture; ``title`` says in words what it shows."""

    width: float
    height: float
    title: str
    marks: Sequence[Mark] = field(default_factory=tuple)


def rectangle(
    x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0, tip: str = ""
) -> Area:
    """A filled rectangle."""
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return Area(corners, colour, opacity, tip)


def frame(x: float, y: float, width: float, height: float, colour: str, line: float = 1.0) -> Line:
    """The outline of a rectangle."""
    return Line([*rectangle(x, y, width, height, colour).points, (x, y)], colour, line)


def sign(x: float, y: float, size: float, right: bool) -> Iterator[Line]:
    """A tick or a cross in a square whose upper left corner is (x, y)."""
    lines = [[(0.1, 0.55), (0.4, 0.85), (0.9, 0.15)]]
    if not right:
        lines = [[(0.15, 0.15), (0.85, 0.85)], [(0.15, 0.85), (0.85, 0.15)]]
    for points in lines:
        placed = [(x + size * across, y + size * down) for across, down in points]
        yield Line(placed, "good" if right else "bad", size / 5)


def shortened(text: str, width: float, size: float) -> str:
    """The text, cut to about this width."""
    if text_width(text, size) <= width:
        return text
    text = text[: int(width / (0.56 * size))]  # more letters than that never fit
    while text and text_width(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text}…"


def text_width(text: str, size: float) -> float:
    """About the width of a text in a sans-serif font."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return size * (0.56 * (len(text) - wide) + wide)


def in_rows(drawings: Sequence[Drawing], columns: int, title: str, gap: float = 18) -> Drawing:
    """Drawings side by side, so many in a row."""
    marks, y, width = [], 0.0, 0.0
    for begin in range(0, len(drawings), columns):
        row, x = drawings[begin : begin + columns], 0.0
        for each in row:
            marks.append(Placed(x, y, each))
            x += each.width + gap
        y += max(each.height for each in row) + gap
        width = max(width, x - gap)
    return Drawing(width, max(y - gap, 1), title, tuple(marks))


def legend(entries: Sequence[tuple[str, str]], width: float = 360, columns: int = 3) -> Drawing:
    """Names and their colours."""
    marks: list[Mark] = []
    each = width / columns
    for place, (name, colour) in enumerate(entries):
        x, y = each * (place % columns), 18 * (place // columns)
        marks.append(rectangle(x, y + 4, 14, 9, colour))
        marks.append(Text(x + 19, y + 13, shortened(name, each - 24, 12), tip=name))
    rows = -(-len(entries) // columns)
    return Drawing(width, max(18 * rows, 1), "Colours: " + ", ".join(name for name, _ in entries), marks)
