"""HTML elements whose text is escaped unless it is markup of ours."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_VOID = {"br", "hr", "img", "meta", "wbr"}


class Html(str):
    """Markup that needs no escaping."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | bool | None) -> Html:
    """An element.

    Args:
        name: Of the element.
        children: Text, which is escaped, and markup.
        attributes: ``class_`` for ``class``, ``font_size`` for ``font-size``; None and False: left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        words.append(attribute if value is True else f'{attribute}="{html.escape(value)}"')
    inner = joined(children)
    return Html(f"<{' '.join(words)}>" if name in _VOID else f"<{' '.join(words)}>{inner}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """Parts one after the other; text is escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def listing(lines: Sequence[str]) -> Html:
    """A list of sentences."""
    return tag("ul", *(tag("li", line) for line in lines)) if lines else Html("")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> Html:
    """A table whose first column names the rows."""
    head = tag("tr", *(tag("th", text, scope="col") for text in header))
    return sheet([head], rows, caption)


def sheet(head: Sequence[Html], rows: Iterable[Sequence[str]], caption: str = "") -> Html:
    """A table below a header of one's own; it scrolls where it is too wide."""
    body = [
        tag("tr", tag("th", first, scope="row"), *(tag("td", text) for text in rest)) for first, *rest in rows
    ]
    titled = [tag("caption", tag("span", caption))] if caption else []
    inner = tag("table", *titled, tag("thead", *head), tag("tbody", *body))
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption or "Table")


def folded(summary: str, *children: str, open_: bool = False) -> Html:
    """A part that can be opened."""
    return tag("details", tag("summary", summary), *children, open=open_)
