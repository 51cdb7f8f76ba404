"""Drawings as PNG, painted with Pillow: light, with a white ground."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import pairwise

from PIL import Image, ImageColor, ImageDraw, ImageFont

from ccl_cli.report.collect import clean
from ccl_cli.report.drawing import LIGHT, Area, Dot, Drawing, Line, Mark, Picture, Placed, Point, Text

_MARGIN = 12
_SHOWN = 2  # pixels of the file per CSS pixel
_SMOOTH = 2  # painted so many times larger, for smooth edges
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def png(drawing: Drawing) -> bytes:
    """The file's bytes."""
    width, height = (round(_SHOWN * (side + 2 * _MARGIN)) for side in (drawing.width, drawing.height))
    painter = _Painter(width * _SMOOTH, height * _SMOOTH)
    painter.paint(drawing, (_MARGIN, _MARGIN))
    file = io.BytesIO()
    small = painter.image.resize((width, height), Image.Resampling.BOX)
    small.save(file, "PNG", optimize=True)
    return file.getvalue()


class _Painter:
    scale = _SHOWN * _SMOOTH

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), LIGHT["paper"])
        self.draw = ImageDraw.Draw(self.image, "RGBA")

    def paint(self, drawing: Drawing, origin: Point) -> None:
        for mark in drawing.marks:
            if isinstance(mark, Placed):
                self.paint(mark.drawing, (origin[0] + mark.x, origin[1] + mark.y))
            else:
                self._mark(mark, origin)

    def _mark(self, mark: Mark, origin: Point) -> None:
        match mark:
            case Line():
                self._line(mark, [self._at(point, origin) for point in mark.points])
            case Area():
                points = [self._at(point, origin) for point in mark.points]
                self.draw.polygon(points, fill=_colour(mark.colour, mark.opacity))
            case Dot():
                centre = self._at((mark.x, mark.y), origin)
                self.draw.circle(centre, mark.radius * self.scale, fill=_colour(mark.colour, mark.opacity))
            case Text():
                self._text(mark, self._at((mark.x, mark.y), origin))
            case Picture():
                size = round(mark.width * self.scale), round(mark.height * self.scale)
                picture = Image.open(io.BytesIO(mark.jpeg)).resize(size, Image.Resampling.BICUBIC)
                x, y = self._at((mark.x, mark.y), origin)
                self.image.paste(picture, (round(x), round(y)))

    def _line(self, mark: Line, points: list[Point]) -> None:
        width = max(1, round(mark.width * self.scale))
        stretches = _dashes(points, 5 * self.scale, 3 * self.scale) if mark.dashed else [points]
        for stretch in stretches:
            self.draw.line(stretch, fill=_colour(mark.colour), width=width, joint="curve")

    def _text(self, mark: Text, at: Point) -> None:
        font, colour = _font(round(mark.size * self.scale)), _colour(mark.colour)
        text = clean(mark.text)
        if not mark.turned:
            self.draw.text(at, text, fill=colour, font=font, anchor=_ANCHORS[mark.anchor])
            return
        length = round(font.getlength(text)) + 1
        tall = round(1.4 * mark.size * self.scale)
        strip = Image.new("L", (max(length, 1), tall))
        ImageDraw.Draw(strip).text((0, mark.size * self.scale), text, fill=255, font=font, anchor="ls")
        before = {"start": length, "middle": length // 2, "end": 0}[mark.anchor]
        corner = round(at[0] - mark.size * self.scale), round(at[1] - before)
        self.image.paste(colour[:3], corner, strip.rotate(90, expand=True))

    def _at(self, point: Point, origin: Point) -> Point:
        return (origin[0] + point[0]) * self.scale, (origin[1] + point[1]) * self.scale


def _dashes(points: list[Point], on: float, off: float) -> list[list[Point]]:
    """Stretches of a line of length ``on``, ``off`` apart."""
    stretches: list[list[Point]] = []
    done = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        at = 0.0
        while at < length:
            phase = (done + at) % (on + off)
            step = min(length - at, on - phase if phase < on else on + off - phase) or length
            ends = [((x1 - x0) * t / length + x0, (y1 - y0) * t / length + y0) for t in (at, at + step)]
            if phase < on:
                stretches.append(ends)
            at += max(step, 1e-3)
        done += length
    return stretches


def _colour(name: str, opacity: float = 1.0) -> tuple[int, int, int, int]:
    red, green, blue = ImageColor.getrgb(LIGHT.get(name, name))[:3]
    return red, green, blue, round(255 * opacity)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    return font
