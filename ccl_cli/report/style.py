"""How plots look: colours by name, in light and in dark, letters, and matplotlib's settings.

A colour's light value is what matplotlib draws with; within a page a variable of that name takes its place.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# The series (s0 to s7) differ in lightness too: readers who see red and green alike can tell them apart.
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
SERIES = 8
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MEASURED_IN = "DejaVu Sans"  # comes with matplotlib, and is wider than what browsers show in its place
DPI = 72  # a point of matplotlib is then a pixel of CSS

_SETTINGS: dict[Any, Any] = {
    "figure.dpi": DPI,
    "figure.facecolor": "none",
    "figure.titlesize": 13,
    "figure.constrained_layout.w_pad": 6 / DPI,
    "figure.constrained_layout.h_pad": 4 / DPI,
    "font.family": MEASURED_IN,
    "font.size": 11,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # a class may be called "$5 or $10"
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


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings for our plots, whatever the user's own are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        # Browsers have fonts for all letters; in the other files a box stands for one that is lacking.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        yield


def page_colours() -> str:
    """CSS: the font, and colours that are light, or dark on the screen of a reader who prefers that."""
    return (
        f":root{{color-scheme:light dark;--font:{FONT};{_variables(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
        "@media print{:root{color-scheme:light}}"
    )


def _variables(palette: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in palette.items())
