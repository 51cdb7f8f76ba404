"""Other people's text, made fit to be shown."""

from __future__ import annotations


def visible(text: str) -> str:
    """The text on one line, without anything that a terminal would obey: such letters as escapes."""
    escape = "unicode_escape"
    return "".join(each if each.isprintable() else each.encode(escape).decode() for each in text)


def cut(text: str, letters: int) -> str:
    """At most so many letters, the ends of a longer text: what is said of it stands there."""
    if len(text) <= letters:
        return text
    tail = letters // 3
    return f"{text[: letters - tail - 1]}…{text[-tail:]}"
