"""A share of some work, for schedulers that number what they start: ``--part 2/4``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from ccl_cli.errors import UsageError

T = TypeVar("T")


class Part(NamedTuple):
    """The part ``number``, from 1, of all ``parts``."""

    number: int
    parts: int

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Every item belongs to one part; neighbours belong to different ones."""
        return items[self.number - 1 :: self.parts]


WHOLE = Part(1, 1)


def parse_part(text: str | None) -> Part:
    """``2/4`` stands for the second of four; None for the whole.

    Raises:
        UsageError: neither.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text or "1/1")
    part = Part(*map(int, match.groups())) if match else Part(0, 0)
    if not 1 <= part.number <= part.parts:
        raise UsageError(f"--part {text}: not one of a number of parts.", "For example 2/4, from 1/4 to 4/4.")
    return part
