"""Jinja2 templates and their filters."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from ccl_cli import __version__
from ccl_cli.report.figures.correspondence import percent
from ccl_cli.report.figures.panel import inline
from ccl_cli.report.figures.style import page_colours

_NUMBERS = re.compile(r"([-+<]? ?\d[\d,.]*( %|%)?(( to |/)[-+]?\d[\d.]*)*|-)?")

_CODE = re.compile(r"`([^`]+)`")


def render(template: str, **context: Any) -> str:
    """Fill a template of this package; every value is escaped."""
    return _templates().get_template(template).render(context)


def render_macro(template: str, macro: str, **context: Any) -> str:
    """Fill one macro of a template of this package; every value is escaped."""
    return str(getattr(_templates().get_template(template).module, macro)(**context))


@cache
def _templates() -> Environment:
    loader = PackageLoader("ccl_cli.report.page")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"version": __version__, "colours": Markup(page_colours())}
    environment.filters["code"] = _code
    environment.filters["base64"] = lambda jpeg: base64.b64encode(jpeg).decode()
    environment.filters["percent"] = percent
    environment.filters["numeric_columns"] = _numeric_columns
    environment.filters["svg"] = lambda panel: Markup(inline(panel))
    return environment


def _code(text: str) -> Markup:
    """Escape text and show parts in backquotes as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _numeric_columns(lines: Sequence[Sequence[str]]) -> list[bool]:
    """Find the columns to align to the right: those with only numbers, intervals and empty texts."""
    return [all(map(_NUMBERS.fullmatch, column)) for column in zip(*lines[1:], strict=True)]
