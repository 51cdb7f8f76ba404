from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ccl_cli.report.plot import (
    Panel,
    bars,
    in_rows,
    inline,
    legend,
    logarithmic,
    save,
    shortened,
    tips,
)
from ccl_cli.report.style import DARK, LIGHT, MEASURED_IN, SERIES, page_colours
from tests.report.pages import Reading
from tests.report.plots import axes_of, texts, titles

# Machado et al. 2009: what red and green look like, in linear RGB, without one of the two kinds of cones.
BLIND = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "all cones": np.eye(3),
}
# Ottosson 2020: linear RGB to cones, and their cube roots to Oklab, where distances are as large as they look.
CONES = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
OKLAB = [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]]


def linear(colour):
    parts = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(linear(colour) @ (0.2126, 0.7152, 0.0722) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(colour, kind):
    return np.array(OKLAB) @ np.cbrt(CONES @ np.clip(np.array(BLIND[kind]) @ linear(colour), 0, 1))


def a_panel(text="t", width=100, height=80, draw=lambda axes: axes.plot([0, 1], [0, 1]), heading=""):
    return Panel(text, width, height, draw, heading)


def test_both_palettes_have_all_colours_and_each_is_a_variable():
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)  # colours in an SVG are replaced by value
    for name in LIGHT:
        assert f"--{name}:{LIGHT[name]};" in page_colours()
        assert f"--{name}:{DARK[name]};" in page_colours().partition("dark)")[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_texts_and_series_stand_out_from_the_ground(palette):
    for name in palette.keys() - {"paper", "grid"}:
        needed = 4.5 if name in ("ink", "muted", "good", "bad", "s0") else 3.0
        assert contrast(palette[name], palette["paper"]) >= needed, name


@pytest.mark.parametrize("kind", BLIND)
@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_series_differ_for_readers_who_are_colour_blind(palette, kind):
    series = ["ink", *(f"s{n}" for n in range(SERIES))]
    for pair in [*itertools.combinations(series, 2), ("good", "bad")]:
        one, other = (oklab(palette[name], kind) for name in pair)
        assert np.linalg.norm(one - other) > 0.08, pair


def test_a_plot_in_a_page_follows_its_colours_and_letters():
    text = inline(a_panel("What it shows", draw=lambda axes: axes.plot([1, 2], color=LIGHT["s0"])))
    assert text.startswith("<svg")
    root = ET.fromstring(text)
    assert (root.get("role"), root.find("title").text) == ("img", "What it shows")
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == ("100", "80", "0 0 100 80")
    assert "stroke: var(--s0)" in text
    assert "var(--grid)" in text
    assert not [colour for colour in LIGHT.values() if colour in text]
    assert "var(--font)" in text
    assert MEASURED_IN not in text


def test_plots_in_one_page_have_ids_of_their_own():
    page = inline(a_panel("one")) + inline(a_panel("two"))
    ids = Reading(page).ids
    assert len(ids) == len(set(ids)) >= 2
    for reference in set(page.split("url(#")[1:]):
        assert reference.partition(")")[0] in ids


def test_the_same_plot_is_the_same_text_and_file(tmp_path):
    assert inline(a_panel()) == inline(a_panel())
    for suffix in (".png", ".svg", ".pdf"):
        for name in ("a", "b"):
            save([[a_panel()]], tmp_path / name, suffix)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_settings_of_the_user_change_nothing_and_stay(monkeypatch):
    before = inline(a_panel(heading="h"))
    with matplotlib.rc_context({"axes.grid": False, "font.size": 30, "text.usetex": True}):
        assert inline(a_panel(heading="h")) == before
        assert matplotlib.rcParams["font.size"] == 30


def test_hostile_and_odd_texts(tmp_path):
    odd = "<&\"'\x00\x07 \u202e 中文 $x_1 $"
    panel = a_panel(
        odd, 400, 100, lambda axes: bars(axes, [odd], [1.0], [LIGHT["s0"]]), odd.replace("\x00", "")
    )
    text = inline(panel)
    assert "\x00" not in text
    assert titles(text) == ["<&\"' 中文 $x_1 $"] * 2  # of the plot and of the class's name
    assert "<&\"' 中文 $x_1 $" in texts(text)
    for suffix in (".png", ".svg", ".pdf"):
        save([[panel]], tmp_path / f"f{suffix}", suffix)
    ET.parse(tmp_path / "f.svg")


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("colours", [["#ff0000"], ["#ff0000", "#00ff00"]])
def test_each_point_has_its_tip(count, colours):
    def draw(axes):
        points = axes.scatter(range(count), range(count), c=(colours * count)[:count])
        tips(points, [f"point {n}" for n in range(count)])

    assert titles(inline(a_panel(draw=draw)))[1:] == [f"point {n}" for n in range(count)]


def test_panels_keep_their_sizes_in_a_row(tmp_path):
    wide, small = a_panel(width=300, height=100), a_panel(width=100, height=50)
    assert in_rows([wide, small, small], 2) == [[wide, small], [small]]
    save(in_rows([wide, small, small], 2), tmp_path / "f.png", ".png")
    shown = np.asarray(Image.open(tmp_path / "f.png").convert("L")) < 128  # the lines, two pixels for one
    left, right = shown[:, : 2 * 312], shown[:, 2 * 312 :]
    assert left[: 2 * 112].any()
    assert left[2 * 112 :].any()
    assert right[: 2 * 62].any()
    assert not right[2 * 62 :].any()


def test_wide_plots_are_not_squeezed_on_a_phone():
    assert "min-width" not in inline(a_panel(width=400))
    assert 'style="min-width:640px"' in inline(a_panel(width=800))


def test_a_legend_tells_the_names_that_it_cuts():
    names = ["short", "a name that is much too long"]
    shown = inline(legend([(name, LIGHT["s0"]) for name in names], 200, 2))
    assert texts(shown) == ["short", "a name th…"]
    assert titles(shown)[1:] == names


@pytest.mark.parametrize(
    ("low", "high", "named"),
    [(0.2, 40, ["0.3", "1", "3", "10", "30"]), (1, 2e4, ["1", "10", "100", "1,000", "10,000"])],
)
def test_logarithmic_axes_name_round_values(low, high, named):
    axes = axes_of(a_panel(draw=lambda axes: logarithmic(axes, low, high)))
    ticks = [value for value in axes.get_yticks() if low <= value <= high]
    assert [axes.yaxis.get_major_formatter()(value) for value in ticks] == named


def test_shortened():
    assert shortened("short", 5) == "short"
    assert shortened("a very long name of a class", 10) == "a very lo…"
    assert shortened("中文中文", 6) == "中文…"
    assert shortened("a\x00b", 9) == "a b"
