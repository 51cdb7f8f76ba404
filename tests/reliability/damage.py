"""Files damaged on purpose, each a function of its random generator."""

from __future__ import annotations

import json
from random import Random
from typing import Any

# Numbers that writers of headers get wrong.
EXTREMES = (0, 1, 2, 20_000, 1_000_000, *(2**bits - 1 for bits in (7, 8, 15, 16, 31, 32)), 2**15, 2**31)
# Text that YAML, JSON, Python, file systems or terminals take for something else.
TOKENS = [
    "", "null", "true", "-1", "1e999", ".nan", "NaN", "0x10", "09:99", "2001-99-99", "2024-02-30", "9" * 5000, "'", '"', "\\u0000",
    "\\ud800", "\0", "\ufeff", "\u2028", "\x1b[31m", "\r\n", "\n", "\u202e", "😀", "%(x)s", "{0}", "$HOME", "~root", "../", "//", "?a=[", "&",
    "*a", "&a", "!!int ''", "!!python/object:os.system", "!!timestamp x", "<<: {}", ": ", "- ", "---\n", "#", "[", "}", "None", "²", "ß",
    "a" * 300, "a" * 20_000, "\t" * 20_000, "[" * 5_000, "- " * 5_000, '{"a":' * 5_000, "__class__", "file:///dev/zero", "/dev/stdin",
]  # fmt: skip
VALUES = [
    None, True, 0, -1, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "../x", "\ud800", "a" * 5000, [], {}, [[]],
    [None, 1, "x"], {"": None, "x": [1]}, {"a": 1}, list(range(300)), *TOKENS[:12],
]  # fmt: skip


def damage(content: bytes, rng: Random, extent: int = 0) -> bytes:
    """A damaged copy: cut off, bits turned over, a piece lost, doubled or blank, a number or a text put in its place.

    Args:
        content: At least one byte.
        extent: Where numbers and texts are put, from the start; 0: anywhere.
    """
    way, at = rng.randrange(7), rng.randrange(len(content))
    size = int(len(content) * rng.betavariate(0.5, 4)) + 1
    if way == 0:
        return content[: int(len(content) * rng.betavariate(0.6, 0.6))]
    if way == 1:
        variant = bytearray(content)
        for _ in range(2 ** rng.randrange(9)):
            variant[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return bytes(variant)
    if way == 2:
        return content[:at] + content[at + size :]
    if way == 3:
        return content[: at + size] + content[at:]
    if way == 4:
        return content[:at] + bytes(size) + content[at + size :]
    at = rng.randrange(min(extent or len(content), len(content)))
    if way == 5:
        width = rng.choice([1, 2, 4, 8])
        number = (rng.choice(EXTREMES) % 256**width).to_bytes(width, rng.choice(["big", "little"]))
        return content[:at] + number + content[at + width :]
    return content[:at] + rng.choice(TOKENS).encode() + content[at + rng.choice([0, 0, 1, 4, 16]) :]


def twist(value: Any, rng: Random) -> Any:
    """A JSON value with one part of it replaced, lost or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        rest = {name: each for name, each in value.items() if name != key}
        if (way := rng.random()) < 0.1:
            return rest
        return (
            {**rest, rng.choice(TOKENS): value[key]} if way < 0.2 else {**value, key: twist(value[key], rng)}
        )
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], twist(value[place], rng), *value[place + 1 :]]
    return rng.choice(VALUES)


def damaged_text(valid: bytes, rng: Random) -> bytes:
    """Damaged bytes or, of JSON in half of the cases, JSON in which a part is of another kind."""
    if rng.random() < 0.5:
        lines = valid.splitlines() or [b""]
        place = rng.randrange(len(lines))
        for whole, before, after in ((valid, [], []), (lines[place], lines[:place], lines[place + 1 :])):
            try:
                text = json.dumps(twist(json.loads(whole), rng)).encode("utf-8", "surrogatepass")
            except ValueError:
                continue
            return b"\n".join([*before, text, *after])
    return damage(valid, rng)
