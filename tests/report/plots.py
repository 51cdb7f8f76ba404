"""What a reader finds in an inlined plot."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccl_cli.report.figures.panel import Panel
from ccl_cli.report.figures.style import style


def axes_of(panel: Panel) -> Axes:
    """The panel's axes, drawn."""
    with style():
        axes = Figure().subplots()
        panel.draw(axes)
    return axes


def texts(svg: str) -> list[str]:
    """All that is written."""
    return [each.text or "" for each in ET.fromstring(svg).findall(".//{*}text")]


def titles(svg: str) -> list[str]:
    """Titles: of the whole plot first, then the tooltips."""
    return [each.text or "" for each in ET.fromstring(svg).findall(".//{*}title")]
