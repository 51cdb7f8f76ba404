"""Drawings as SVG: within a page, whose style gives the colours, or as a file of its own."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence

from ccl_cli.report.collect import clean
from ccl_cli.report.drawing import DARK, LIGHT, Area, Dot, Drawing, Line, Mark, Picture, Placed, Point, Text
from ccl_cli.report.markup import Html, tag

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_MARGIN = 12
_PHONE = 440


def inline(drawing: Drawing) -> Html:
    """An ``svg`` element for a page that defines :func:`variables`."""
    return tag(
        "svg",
        tag("title", clean(drawing.title)),
        *_marks(drawing),
        viewBox=f"0 0 {_number(drawing.width)} {_number(drawing.height)}",
        role="img",
        width=_number(drawing.width),
        # On a phone a wide picture scrolls rather than shrink until nobody can read it.
        style=f"min-width:{_number(0.8 * drawing.width)}px" if drawing.width > _PHONE else None,
    )


def document(drawing: Drawing) -> str:
    """A file: light, with a white ground."""
    width, height = drawing.width + 2 * _MARGIN, drawing.height + 2 * _MARGIN
    body = tag(
        "svg",
        tag("title", clean(drawing.title)),
        tag("style", Html(f":root{{{variables(LIGHT)}}}text{{font-family:{FONT}}}")),
        tag("rect", width="100%", height="100%", fill=LIGHT["paper"]),
        tag("g", *_marks(drawing), transform=f"translate({_MARGIN} {_MARGIN})"),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_number(width)} {_number(height)}",
        width=_number(width),
        height=_number(height),
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def variables(palette: Mapping[str, str]) -> str:
    """A palette as CSS declarations."""
    return "".join(f"--{name}:{value};" for name, value in palette.items())


def page_colours() -> str:
    """CSS: light, or dark where the reader prefers that."""
    return (
        f":root{{color-scheme:light dark;{variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
    )


def data_uri(jpeg: bytes) -> str:
    """A picture within the page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _marks(drawing: Drawing) -> Iterator[Html]:
    for mark in drawing.marks:
        if isinstance(mark, Placed):
            where = f"translate({_number(mark.x)} {_number(mark.y)})"
            yield tag("g", *_marks(mark.drawing), transform=where)
        else:
            yield _element(mark)


def _element(mark: Mark) -> Html:
    match mark:
        case Line():
            return tag(
                "polyline",
                points=_points(mark.points),
                fill="none",
                style=f"stroke:{_colour(mark.colour)}",
                stroke_width=_number(mark.width),
                stroke_linejoin="round",
                stroke_dasharray="5 3" if mark.dashed else None,
            )
        case Area():
            return _filled("polygon", mark, points=_points(mark.points))
        case Dot():
            return _filled("circle", mark, cx=_number(mark.x), cy=_number(mark.y), r=_number(mark.radius))
        case Text():
            return _text(mark)
        case Picture():
            box = {key: _number(getattr(mark, key)) for key in ("x", "y", "width", "height")}
            return tag("image", *_tip(mark.tip), href=data_uri(mark.jpeg), **box)
    raise TypeError(mark)


def _filled(name: str, mark: Area | Dot, **shape: str) -> Html:
    opacity = None if mark.opacity == 1 else _number(mark.opacity)
    style = f"fill:{_colour(mark.colour)}"
    return tag(name, *_tip(mark.tip), style=style, fill_opacity=opacity, **shape)


def _text(mark: Text) -> Html:
    x, y = _number(mark.x), _number(mark.y)
    return tag(
        "text",
        clean(mark.text),
        *_tip(mark.tip if mark.tip != mark.text else ""),
        x=x,
        y=y,
        font_size=_number(mark.size),
        style=f"fill:{_colour(mark.colour)}",
        text_anchor=mark.anchor if mark.anchor != "start" else None,
        transform=f"rotate(-90 {x} {y})" if mark.turned else None,
    )


def _tip(text: str) -> list[Html]:
    return [tag("title", clean(text))] if text else []


def _colour(name: str) -> str:
    return f"var(--{name})" if name in LIGHT else name


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
