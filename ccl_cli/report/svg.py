"""Matplotlib's SVG made fit for a page: shorter, in the page's colours and letters, with tips."""

from __future__ import annotations

import hashlib
import io
import json
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

from ccl_cli.report.style import FONT, LIGHT, MEASURED_IN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TIPS = "tips"  # how the id of a group begins that holds texts for what is in it
_PHONE = 440
_VARIABLES = {value: f"var(--{name})" for name, value in LIGHT.items()}
_COLOUR = re.compile("|".join(_VARIABLES))
_REFERENCE = re.compile(r"(#)([\w.-]+)")
_LONG = re.compile(r"-?\d+\.\d{3,}")
_SHAPES = ("use", "path", "text")


def for_page(figure: Figure, text: str) -> str:
    """An element that follows the page's colours; ``text`` says what it shows."""
    root = _element(figure, text)
    root.set("role", "img")
    if float(root.get("width", 0)) > _PHONE:
        # On a phone a wide plot scrolls rather than shrink until nobody can read it.
        root.set("style", f"min-width:{0.8 * float(root.get('width', 0)):.0f}px")
    for element in root.iter():
        if "style" in element.attrib and element is not root:
            style = _COLOUR.sub(lambda match: _VARIABLES[match[0]], element.attrib["style"])
            element.set("style", style.replace(f"'{MEASURED_IN}'", "var(--font)"))
    return ET.tostring(root, encoding="unicode")


def for_file(figure: Figure, text: str, **looks: Any) -> str:
    """A file of its own; ``looks`` as of ``Figure.savefig``."""
    root = _element(figure, text, **looks)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    for element in root.iter("text"):
        element.set("style", element.get("style", "").replace(f"'{MEASURED_IN}'", FONT))
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _element(figure: Figure, text: str, **looks: Any) -> ET.Element:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Title": text, "Date": None}, **looks)
    prefix = "p" + hashlib.sha256(drawn.getvalue()).hexdigest()[:6]  # ids must differ from other plots'
    root = ET.fromstring(drawn.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        _shorten(element, prefix)
    for group in root.iter("g"):
        if (name := group.get("id", "")).startswith(TIPS):
            _add_tips(group, json.loads(group.attrib.pop("id")[len(TIPS) :]))
        elif name:
            del group.attrib["id"]  # nothing refers to a group
    root.set("width", root.get("width", "").removesuffix("pt"))
    root.set("height", root.get("height", "").removesuffix("pt"))
    root.set("stroke-linejoin", "round")
    return root


def _shorten(element: ET.Element, prefix: str) -> None:
    """Plain names, ids that begin with the prefix, and two decimals."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    element.text = (element.text or "").strip() or None
    for name, value in list(element.attrib.items()):
        del element.attrib[name]
        name = name.rpartition("}")[2]
        if name == "id" and element.tag != "g":
            value = f"{prefix}-{value}"
        elif name in ("href", "clip-path") and not value.startswith("data:"):
            value = _REFERENCE.sub(rf"\1{prefix}-\2", value)
        elif name not in ("id", "style", "href"):
            value = " ".join(_LONG.sub(lambda match: f"{float(match[0]):.2f}", value).split())
        if not value.startswith("rotate(-0 "):
            element.set(name, value)


def _add_tips(group: ET.Element, texts: list[str]) -> None:
    kept = {shape for defs in group.iter("defs") for shape in defs.iter()}
    shapes = [each for each in group.iter() if each.tag in _SHAPES and each not in kept]
    for shape, text in zip(shapes, texts, strict=True):
        ET.SubElement(shape, "title").text = text
