"""Axes: where a value lies, and which values to name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ccl_cli.report.drawing import Line, Mark, Text


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` on pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def over(
        cls, values: Iterable[float], start: float, end: float, *, log: bool = False, zero: bool = False
    ) -> Axis:
        """An axis on which all values fit; ``log``: if they are positive and span a lot; ``zero``: has 0."""
        there = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(there), max(there)
        log = log and low > 0 and high / low > 20
        low = min(low, 0.0) if zero and not log else low
        return cls(low, high if high > low else low + 1, start, end, log)

    def __call__(self, value: float) -> float:
        """Pixels."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within the axis."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            factors = (1, 3) if last - first < 3 else (1,)
            found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        else:
            step = round_step((self.high - self.low) / count)
            first = math.ceil(self.low / step - 1e-9)
            found = [step * n for n in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [value for value in found if self.low <= value <= self.high * (1 + 1e-9)]


def round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def grid(across: Axis, down: Axis, x_name: str, at: Iterable[float] | None = None) -> list[Mark]:
    """Lines and numbers of both axes; ``down`` runs from its lower pixel to its upper one.

    Args:
        across: Horizontal axis.
        down: Vertical axis.
        x_name: What stands below.
        at: Values to name on the horizontal axis; None: round ones.
    """
    marks: list[Mark] = []
    for value in down.ticks():
        y = down(value)
        marks.append(Line([(across.start, y), (across.end, y)], "grid"))
        marks.append(Text(across.start - 6, y + 4, f"{value:,.9g}", 11, "muted", "end"))
    for value in across.ticks(4) if at is None else at:
        marks.append(Text(across(value), down.start + 16, f"{value:,.9g}", 11, "muted", "middle"))
    middle = (across.start + across.end) / 2
    return [*marks, Text(middle, down.start + 32, x_name, 11, "muted", "middle")]
