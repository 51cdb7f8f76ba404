"""Style of the figures: colours of the light and the dark theme, fonts, and settings of matplotlib.

Matplotlib draws with the light colours. In a page, CSS variables with the same names replace them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ccl_cli.report.records import paper
from ccl_cli.report.records.results import BASELINE, Results

# The series s0 to s7 also differ in lightness, so that colour-blind readers can distinguish them.
LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#59636e",
    "grid": "#dce1e6",
    "good": "#00785a",
    "bad": "#b84a00",
    "s0": "#0b63ce",
    "s1": "#d55e00",
    "s2": "#3fa382",
    "s3": "#4b1a78",
    "s4": "#5a4300",
    "s5": "#3a9bd0",
    "s6": "#7d3a66",
    "s7": "#6b7280",
}
DARK = {
    "paper": "#14181d",
    "ink": "#e8ecf0",
    "muted": "#9aa5b1",
    "grid": "#333b44",
    "good": "#3fc9a0",
    "bad": "#ff9a52",
    "s0": "#6cb0ff",
    "s1": "#f0883e",
    "s2": "#7fdcae",
    "s3": "#a43cb8",
    "s4": "#eee256",
    "s5": "#5a95ba",
    "s6": "#c9606f",
    "s7": "#a3adb8",
}
SERIES = 8  # s0 to s7
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MEASURED_IN = "DejaVu Sans"  # comes with matplotlib; wider than the fonts that browsers substitute
DPI = 72  # makes a matplotlib point equal to a CSS pixel

_SETTINGS: dict[Any, Any] = {
    "figure.dpi": DPI,
    "figure.facecolor": "none",
    "figure.titlesize": 13,
    "figure.constrained_layout.w_pad": 6 / DPI,
    "figure.constrained_layout.h_pad": 4 / DPI,
    "font.family": MEASURED_IN,
    "font.size": 11,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # class names may contain dollar signs
    "axes.facecolor": "none",
    "axes.edgecolor": LIGHT["grid"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 1,
    "xtick.color": LIGHT["grid"],
    "ytick.color": LIGHT["grid"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0,
    "image.composite_image": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def method_colour_name(results: Results, method: str) -> str:
    """Name of a method's colour in the palettes; a method has the same colour in all figures."""
    if method == BASELINE:
        return "ink"
    order = dict.fromkeys(name for name in ("ccl", *paper.METHODS, *results.methods) if name != BASELINE)
    return f"s{list(order).index(method) % SERIES}"


def method_colour(results: Results, method: str) -> str:
    """A method's light colour, as matplotlib draws it."""
    return LIGHT[method_colour_name(results, method)]


@contextmanager
def style() -> Iterator[None]:
    """Apply the settings of our figures, independent of the user's matplotlib configuration."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        # Browsers have fonts for all scripts; PNG and PDF show a box for a missing glyph.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        yield


def page_colours() -> str:
    """CSS of the font and of the colours: light, or dark on screens that prefer a dark theme."""
    return (
        f":root{{color-scheme:light dark;--font:{FONT};{_variables(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
        "@media print{:root{color-scheme:light}}"
    )


def _variables(palette: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in palette.items())
