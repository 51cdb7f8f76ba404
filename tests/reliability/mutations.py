"""Text made from valid text, by a seed: damaged bytes, and values that nobody expects in their place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from random import Random
from typing import Any

_TOKENS = [
    "", "null", "true", "-1", "0", "1e999", "-1e-999", ".nan", ".inf", "NaN", "Infinity", "0x10", "1_000", "09:99", "1:2:3",
    "2001-99-99", "2024-02-30", "2024-01-01", "9" * 40, "9" * 5000, "'", '"', "\\", "\\u0000", "\\ud800", "\0", "\ufeff", "\u2028",
    "\x1b[31m", "\r\n", "\r", "\n", "\t", " ", "\u202e", "é", "😀", "%", "%(x)s", "{}", "{0}", "$HOME", "~", "~root", "../", "/", "//", "C:\\",
    "?a=1", "?a=[", "&", "*a", "&a", "!!int ''", "!!python/object:os.system", "!!timestamp x", "!!bool x", "!!float ''", "!!binary é", "<<: {}",
    ": ", "- ", "? ", "| ", "> ", "---\n", "...\n", "#", "@", "`", "=", "[", "]", "{", "}", ",", ";", "\t\t", "None", "[]", "{}", "[[]]",
    "\u0661\u0662", "²", "①", "ß", "İ", "a" * 300, "x.y.z", "__class__", "extends", "http://", "file:///dev/zero", "/dev/stdin",
]  # fmt: skip

# What stands where another kind of value was expected; each is made anew.
_VALUES: list[Callable[[Random], Any]] = [
    lambda rng: None,
    lambda rng: rng.choice([True, False]),
    lambda rng: rng.choice([0, 1, -1, 2**31, -(2**63), 2**64, 10**30, 10**400]),
    lambda rng: rng.choice([0.5, -0.0, 1e308, 5e-324, math.nan, math.inf, -math.inf]),
    lambda rng: rng.choice(_TOKENS),
    lambda rng: rng.choice("aé\u0000\ud800\u202e😀\x1b") * rng.choice([1, 3, 5000]),
    lambda rng: [],
    lambda rng: {},
    lambda rng: [None, 1, "x"],
    lambda rng: {"": None, "x": [1]},
    lambda rng: [[["deep"]]],
    lambda rng: {rng.choice(_TOKENS): rng.choice(_TOKENS)},
    lambda rng: list(range(300)),
]


def damaged(valid: bytes, rng: Random) -> bytes:
    """A text with one to three pieces of it cut out, doubled, moved, replaced, or written in other bytes."""
    data = valid
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        data = rng.choice(_DAMAGES)(data, rng)
    return data


def twisted(value: Any, rng: Random) -> Any:
    """A JSON value with one to three parts of it dropped, renamed, moved, or replaced by odd ones."""
    root = [json.loads(json.dumps(value))]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        parent, key = _place(root, rng)
        _twist(parent, key, rng)
        if not root:
            root = [rng.choice(_VALUES)(rng)]
    return root[0]


def as_json(value: Any, rng: Random) -> bytes:
    """Its text; now and then a key stands there twice, or brackets go deeper than anybody reads."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.03:
        text = text.replace("{", '{"format": 1, ', 1)
    if rng.random() < 0.03:
        text = _deep(text, rng)
    return text.encode("utf-8", "surrogatepass")


def _place(root: list[Any], rng: Random) -> tuple[Any, Any]:
    """A container and a key in it, each depth as likely as the others."""
    parent: Any = root
    key: Any = 0
    while isinstance(parent[key], list | dict) and parent[key] and rng.random() < 0.75:
        parent = parent[key]
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    return parent, key


def _twist(parent: Any, key: Any, rng: Random) -> None:
    way = rng.randrange(8)
    if way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, dict):
        parent[rng.choice([*_TOKENS, *map(str, parent)])] = parent.pop(key)
    elif way == 2 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), parent[rng.randrange(len(parent))])
    elif way == 3:
        parent[key] = [parent[key]]
    elif way == 4 and isinstance(parent[key], str):
        parent[key] = damaged(parent[key].encode("utf-8", "surrogatepass"), rng).decode("utf-8", "replace")
    else:
        parent[key] = rng.choice(_VALUES)(rng)


def _span(data: bytes, rng: Random) -> tuple[int, int]:
    begin = rng.randrange(len(data) + 1)
    return begin, min(len(data), begin + rng.choice([1, 1, 2, 4, 16, 200]))


def _cut(data: bytes, rng: Random) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + data[end:]


def _double(data: bytes, rng: Random) -> bytes:
    begin, end = _span(data, rng)
    return data[:end] + data[begin:end] * rng.choice([1, 2, 50]) + data[end:]


def _insert(data: bytes, rng: Random) -> bytes:
    begin, end = _span(data, rng)
    token = rng.choice(_TOKENS).encode("utf-8", "surrogatepass")
    return data[:begin] + token + data[rng.choice([begin, end]) :]


def _word(data: bytes, rng: Random) -> bytes:
    """One word replaced."""
    words = data.split(b" ")
    words[rng.randrange(len(words))] = rng.choice(_TOKENS).encode()
    return b" ".join(words)


def _byte(data: bytes, rng: Random) -> bytes:
    begin = rng.randrange(len(data) + 1)
    return data[:begin] + bytes([rng.randrange(256)]) + data[begin + 1 :]


def _line(data: bytes, rng: Random) -> bytes:
    """Lines in another order, one lost, one twice."""
    lines = data.split(b"\n")
    place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    way = rng.randrange(3)
    if way == 0:
        del lines[place]
    elif way == 1:
        lines.insert(other, lines[place])
    else:
        lines[place], lines[other] = lines[other], lines[place]
    return b"\n".join(lines)


def _end(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _encode(data: bytes, rng: Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(
        rng.choice(["utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp037"]), "replace"
    )


def _ends(data: bytes, rng: Random) -> bytes:
    return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b"\0", b"\x85"]))


def _long(data: bytes, rng: Random) -> bytes:
    begin, _ = _span(data, rng)
    return data[:begin] + rng.choice([b"a", b"9", b" ", b"\t", b"\\", b'"', b"\0"]) * 20_000 + data[begin:]


def _deepen(data: bytes, rng: Random) -> bytes:
    return _deep(data.decode("utf-8", "replace"), rng).encode()


def _deep(text: str, rng: Random) -> str:
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}"), ("- ", ""), ("{a: ", "}"), ("[[", "]]")])
    depth = rng.choice([50, 1_000, 5_000])
    begin = rng.randrange(len(text) + 1) if rng.random() < 0.5 else 0
    inner = text[begin:] if begin else "1"
    closed = closing * depth if rng.random() < 0.7 else ""
    return text[:begin] + opening * depth + inner + closed


_DAMAGES: list[Callable[[bytes, Random], bytes]] = [
    _cut, _cut, _double, _insert, _insert, _insert, _word, _word, _word, _byte, _byte, _line, _line, _end, _encode, _ends, _long, _deepen,
]  # fmt: skip
