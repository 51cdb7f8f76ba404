"""SVG of a figure: tooltips, unique ids, and the colours of the page it is put in."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ccl_cli.report.figures.style import FONT, LIGHT, MEASURED_IN
from ccl_cli.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_TIPS = "tips"  # prefix of the id of a group; the rest of the id are the tooltips of its shapes
_PHONE = 440  # pixels; wider plots scroll on a phone instead of shrinking until they are unreadable
_VARIABLES = {value: f"var(--{name})" for name, value in LIGHT.items()}
_COLOUR = re.compile("|".join(_VARIABLES))
# Parts of matplotlib's SVG to remove: its style sheet would apply to the whole page.
_UNUSED = re.compile(
    r'<metadata>.*?</metadata>|<style.*?</style>|xmlns(:xlink)?="[^"]*"|(?<=>)\s+(?=<)', re.DOTALL
)
_SHAPES = ("use", "path", "text")


def tips(artist: Artist, texts: Iterable[str]) -> None:
    """Attach tooltips for the SVG, one for each shape that the artist draws, in order."""
    artist.set_gid(_TIPS + json.dumps([one_line(text) for text in texts]))


def page_svg(figure: Figure, text: str) -> str:
    """Convert a figure to an ``svg`` element that uses the colours and the font of its page."""
    root = _svg(figure, text)
    for element in root.iter():
        if "style" in element.attrib:
            style = _COLOUR.sub(lambda match: _VARIABLES[match[0]], element.attrib["style"])
            element.set("style", style.replace(f"'{MEASURED_IN}'", "var(--font)"))
    root.set("role", "img")
    width = float(root.get("width", 0))
    if width > _PHONE:
        root.set("style", f"min-width:{0.75 * width:.0f}px")
    return ET.tostring(root, encoding="unicode")


def file_svg(figure: Figure, text: str, **options: Any) -> str:
    """Convert a figure to an SVG file; ``options`` as in ``Figure.savefig``."""
    root = _svg(figure, text, **options)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    for element in root.iter("text"):
        element.set("style", element.get("style", "").replace(f"'{MEASURED_IN}'", FONT))
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _svg(figure: Figure, text: str, **options: Any) -> ET.Element:
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": text}):  # matplotlib hashes ids with this salt
        figure.savefig(file, format="svg", metadata={"Title": text, "Date": None}, **options)
    root = ET.fromstring(_UNUSED.sub("", file.getvalue()).replace("xlink:href", "href"))
    for group in root.iter("g"):
        name = group.attrib.pop("id", "")  # groups are never referenced
        if name.startswith(_TIPS):
            _add_tips(group, json.loads(name[len(_TIPS) :]))
    for side in ("width", "height"):
        root.set(side, root.get(side, "").removesuffix("pt"))
    root.set("stroke-linejoin", "round")
    return root


def _add_tips(group: ET.Element, texts: list[str]) -> None:
    definitions = {shape for defs in group.iter("defs") for shape in defs.iter()}
    shapes = [each for each in group.iter() if each.tag in _SHAPES and each not in definitions]
    for shape, text in zip(shapes, texts, strict=True):
        ET.SubElement(shape, "title").text = text
