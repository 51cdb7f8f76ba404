"""A page in one file: its head, its style, and what every page shows alike."""

from __future__ import annotations

import base64
from importlib.resources import files
from string import Template

from ccl_cli import __version__
from ccl_cli.report.markup import Html, joined, tag
from ccl_cli.report.style import FONT, page_colours


def document(title: str, said: Html, contents: Html, sections: Html) -> str:
    """A page that needs nothing else.

    Args:
        title: Its heading.
        said: What stands below the heading.
        contents: A list of its sections, or nothing.
        sections: The rest.
    """
    return Template(_resource("page.html")).substitute(
        title=joined([title]),
        style=f"{page_colours()}:root{{--font:{FONT}}}\n{_resource('page.css')}",
        verdict=said,
        contents=contents,
        sections=sections,
        footer=joined([f"Written by ccl {__version__}. Everything on this page is in this one file."]),
    )


def picture(jpeg: bytes | None, alt: str, title: str) -> Html:
    """A picture, or the place of one."""
    if jpeg:
        return tag(
            "img", src=f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", alt=alt, title=title
        )
    return tag("span", "no picture", class_="none", title=title)


def _resource(name: str) -> str:
    return (files("ccl_cli.report") / name).read_text(encoding="utf-8")
