"""Safe display of untrusted text."""

from __future__ import annotations


def visible(text: str) -> str:
    """Escape control characters, including line breaks."""
    escape = "unicode_escape"
    return "".join(each if each.isprintable() else each.encode(escape).decode() for each in text)


def printable(text: str) -> str:
    """Escape control characters except line breaks."""
    return "\n".join(map(visible, text.split("\n")))


def one_line(text: object) -> str:
    """Replace line breaks and control characters by single spaces."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())


def in_short(text: str, letters: int) -> str:
    """Escape and truncate text to a number of characters, keeping both ends."""
    # Truncate before escaping, which is slow, and again after it, because escapes are longer.
    return _cut(visible(_cut(text, letters)), letters)


def _cut(text: str, letters: int) -> str:
    if len(text) <= letters:
        return text
    tail = letters // 3
    return f"{text[: letters - tail - 1]}…{text[-tail:]}"
