from __future__ import annotations

import itertools

import numpy as np
import pytest

from ccl_cli.report.figures.style import DARK, LIGHT, SERIES, page_colours

# Machado et al. 2009: what red and green look like, in linear RGB, without one of the two kinds of cones.
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
# Ottosson 2020: linear RGB to cones, and their cube roots to Oklab, where distances are as large as they look.
CONES = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
OKLAB = [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]]


def linear(colour):
    parts = np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(linear(colour) @ (0.2126, 0.7152, 0.0722) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


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


@pytest.mark.parametrize("eye", [PROTAN, DEUTAN, np.eye(3)])
@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_series_differ_for_readers_who_are_colour_blind(palette, eye):
    series = ["ink", *(f"s{n}" for n in range(SERIES))]
    for pair in [*itertools.combinations(series, 2), ("good", "bad")]:
        seen = (np.clip(np.array(eye) @ linear(palette[name]), 0, 1) for name in pair)
        one, other = (np.array(OKLAB) @ np.cbrt(CONES @ colour) for colour in seen)
        assert np.linalg.norm(one - other) > 0.08, pair
