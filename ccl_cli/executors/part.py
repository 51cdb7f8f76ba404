"""``--part 2/4``: a share of the work, for schedulers that number their jobs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from ccl_cli.errors import UsageError

T = TypeVar("T")


class Part(NamedTuple):
    """Part ``number`` (from 1) of ``parts``."""

    number: int
    parts: int

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items of this part. Parts are disjoint and interleaved."""
        return items[self.number - 1 :: self.parts]


WHOLE = Part(1, 1)


def parse_part(text: str | None) -> Part:
    """Parse ``2/4``, the second of four parts; None means all items.

    Raises:
        UsageError: the text is invalid.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text or "1/1")
    if match and 1 <= int(match[1]) <= int(match[2]):
        return Part(int(match[1]), int(match[2]))
    raise UsageError(f"--part {text}: not a valid part.", "For example 2/4, from 1/4 to 4/4.")
