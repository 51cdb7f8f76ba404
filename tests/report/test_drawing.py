from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from ccl_cli.report.axes import Axis, round_step
from ccl_cli.report.drawing import (
    DARK,
    LIGHT,
    Drawing,
    Line,
    Text,
    in_rows,
    rectangle,
    shortened,
    text_width,
)
from ccl_cli.report.markup import Html, tag
from ccl_cli.report.png import png
from ccl_cli.report.svg import document, inline, page_colours


def test_both_palettes_have_all_colours():
    assert LIGHT.keys() == DARK.keys()
    assert all(
        f"--{name}:{value}" in page_colours() for palette in (LIGHT, DARK) for name, value in palette.items()
    )


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_texts_and_series_stand_out_from_the_ground(palette):
    def luminance(colour):
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name in palette.keys() - {"paper", "grid"}:
        low, high = sorted((luminance(palette[name]), luminance(palette["paper"])))
        needed = 4.5 if name in ("ink", "muted", "good", "bad", "s0") else 3.0
        assert (high + 0.05) / (low + 0.05) >= needed, name


def test_a_rectangle_is_painted_where_it_stands():
    image = Image.open(io.BytesIO(png(Drawing(20, 10, "t", [rectangle(10, 0, 10, 10, "s0")]))))
    margin = 12
    assert image.size == (2 * (20 + 2 * margin), 2 * (10 + 2 * margin))
    assert image.getpixel((2 * (margin + 5), 2 * (margin + 5))) == (255, 255, 255)
    assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((2 * (margin + 15), 2 * (margin + 5)))) == LIGHT["s0"]


def test_placed_drawings_do_not_overlap():
    one = Drawing(10, 10, "one", [rectangle(0, 0, 10, 10, "s0")])
    both = in_rows([one, one, one], 2, "both", gap=5)
    assert (both.width, both.height) == (25, 25)
    assert [(mark.x, mark.y) for mark in both.marks] == [(0, 0), (15, 0), (0, 15)]


def test_dashes_leave_gaps():
    solid, dashed = (
        png(Drawing(100, 4, "t", [Line([(0, 2), (100, 2)], "ink", 2, dashed=dashed)]))
        for dashed in (False, True)
    )
    dark = [
        sum(value < 128 for value in Image.open(io.BytesIO(p)).convert("L").tobytes())
        for p in (solid, dashed)
    ]
    assert dark[1] == pytest.approx(dark[0] * 5 / 8, rel=0.15)


def test_turned_text_is_as_tall_as_it_is_long():
    def box(turned):
        drawing = Drawing(120, 120, "t", [Text(60, 60, "wide words", turned=turned, anchor="middle")])
        image = Image.open(io.BytesIO(png(drawing))).convert("L").point(lambda value: 255 * (value < 128))
        left, top, right, bottom = image.getbbox()
        return right - left, bottom - top, (left + right) / 2, (top + bottom) / 2

    flat, tall = box(False), box(True)
    assert flat[0] == pytest.approx(tall[1], abs=2)
    assert tall[3] == pytest.approx(2 * 72, abs=4)  # centred on its place, margins included


def test_svg_holds_hostile_and_odd_text():
    odd = "<&\"'\x00\x07 \u202e 中文"
    root = ET.fromstring(document(Drawing(10, 10, odd, [Text(0, 0, odd, tip=odd)])))
    assert any("<&\"'" in (each.text or "") for each in root.iter())
    assert "\x00" not in inline(Drawing(10, 10, odd, [Text(0, 0, odd)]))


def test_markup_escapes_all_but_markup():
    assert tag("p", "<b>", Html("<i>x</i>"), class_='"', title=None, open=True) == (
        '<p class="&quot;" open>&lt;b&gt;<i>x</i></p>'
    )


def test_shortened():
    assert shortened("short", 100, 10) == "short"
    cut = shortened("a very long name of a class", 60, 10)
    assert cut.endswith("…")
    assert text_width(cut, 10) <= 60
    assert text_width("中", 10) > text_width("a", 10)


@pytest.mark.parametrize(("rough", "step"), [(0.3, 0.5), (1.0, 1.0), (12, 20), (99, 100), (0.02, 0.02)])
def test_round_step(rough, step):
    assert round_step(rough) == pytest.approx(step)


def test_axes():
    axis = Axis.over([0, 10], 100, 200)
    assert (axis(0), axis(5), axis(10)) == (100, 150, 200)
    assert axis.ticks() == [0, 2, 4, 6, 8, 10]
    log = Axis.over([1, 1000], 0, 300, log=True)
    assert (log(1), log(10), log(1000)) == pytest.approx((0, 100, 300))
    assert log.ticks() == [1, 10, 100, 1000]
    assert not Axis.over([1, 10], 0, 1, log=True).log
    assert not Axis.over([0, 1000], 0, 1, log=True).log
    assert Axis.over([3, 3], 0, 10)(3) == 0
    assert Axis.over([], 0, 1).ticks()
    assert Axis.over([float("nan"), 1, 2], 0, 1).high == 2


def test_wide_pictures_are_not_squeezed_on_a_phone():
    assert "min-width" not in inline(Drawing(400, 10, "t"))
    assert 'style="min-width:640px"' in inline(Drawing(800, 10, "t"))
