"""Other people's text, made fit to be shown."""

from __future__ import annotations


def visible(text: str) -> str:
    """The text on one line, without anything that a terminal would obey: such letters as escapes."""
    escape = "unicode_escape"
    return "".join(each if each.isprintable() else each.encode(escape).decode() for each in text)


def printable(text: str) -> str:
    """As :func:`visible`, over several lines."""
    return "\n".join(map(visible, text.split("\n")))


def in_short(text: str, letters: int) -> str:
    """The visible text, or both ends of one of more letters: what is said of it stands there."""
    # Cut first, because escapes take time, and again, because they take room.
    return _cut(visible(_cut(text, letters)), letters)


def _cut(text: str, letters: int) -> str:
    if len(text) <= letters:
        return text
    tail = letters // 3
    return f"{text[: letters - tail - 1]}…{text[-tail:]}"
