from __future__ import annotations

import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ccl_cli.report.figures.panel import Panel, bars, in_rows, inline, legend, logarithmic, save, shortened
from ccl_cli.report.figures.style import LIGHT, MEASURED_IN
from ccl_cli.report.figures.svg import tips
from tests.report.pages import Reading
from tests.report.plots import axes_of, texts, titles


def a_panel(text="t", width=100, height=80, draw=lambda axes: axes.plot([0, 1], [0, 1]), heading=""):
    return Panel(text, width, height, draw, heading)


def test_a_plot_in_a_page_follows_its_colours_and_letters():
    text = inline(a_panel("What it shows", 800, 80, lambda axes: axes.plot([1, 2], color=LIGHT["s0"])))
    root = ET.fromstring(text)
    assert (root.get("role"), root.find("title").text) == ("img", "What it shows")
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == ("800", "80", "0 0 800 80")
    assert root.get("style") == "min-width:600px"  # a phone does not squeeze it
    assert "stroke: var(--s0)" in text
    assert not [colour for colour in LIGHT.values() if colour in text]
    assert "var(--font)" in text
    assert MEASURED_IN not in text


def test_plots_in_one_page_have_ids_of_their_own():
    page = inline(a_panel("one")) + inline(a_panel("two"))
    ids = Reading(page).ids
    assert len(ids) == len(set(ids)) >= 2
    assert {each.partition(")")[0] for each in page.split("url(#")[1:]} <= set(ids)


def test_the_same_plot_is_the_same_text_and_file_whatever_the_users_settings(tmp_path):
    before = inline(a_panel())
    with matplotlib.rc_context({"axes.grid": False, "font.size": 30, "text.usetex": True}):
        assert inline(a_panel()) == before
        assert matplotlib.rcParams["font.size"] == 30
    for suffix in (".png", ".svg", ".pdf"):
        for name in ("a", "b"):
            save([[a_panel()]], tmp_path / name, suffix)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_hostile_and_odd_texts(tmp_path):
    odd = "<&\"'\x00\x07 \u202e 中文 $x_1 $"
    panel = a_panel(odd, 400, 100, lambda axes: bars(axes, [odd], [1.0], [LIGHT["s0"]]), odd)
    text = inline(panel)
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
    assert [part.any() for part in (left[: 2 * 112], left[2 * 112 :], right[: 2 * 62], right[2 * 62 :])] == [
        *(True, True, True, False)
    ]


def test_a_legend_tells_the_names_that_it_cuts():
    names = ["short", "a name that is much too long"]
    shown = inline(legend([(name, LIGHT["s0"]) for name in names], 200, 2))
    assert texts(shown) == ["short", "a name th…"]
    assert titles(shown)[1:] == names
    assert shortened("short", 5) == "short"
    assert shortened("中文中文", 6) == "中文…"


@pytest.mark.parametrize(
    ("low", "high", "named"),
    [(0.2, 40, ["0.3", "1", "3", "10", "30"]), (1, 2e4, ["1", "10", "100", "1,000", "10,000"])],
)
def test_logarithmic_axes_name_round_values(low, high, named):
    axes = axes_of(a_panel(draw=lambda axes: logarithmic(axes, low, high)))
    ticks = [value for value in axes.get_yticks() if low <= value <= high]
    assert [axes.yaxis.get_major_formatter()(value) for value in ticks] == named
