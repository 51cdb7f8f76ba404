"""Verdicts on how well a teacher's embeddings separate a class. Imports no scikit-learn."""

from __future__ import annotations

from typing import Literal

Verdict = Literal["highly", "weakly", "not"]
VERDICTS: tuple[Verdict, ...] = ("highly", "weakly", "not")
NEIGHBOURS = 10
_HIGH = 0.25
RULE = (
    "Verdict on a class, from the lower end of the exact 95 % interval of its kNN recall: "
    "not correlated if that is not above chance, highly if it is at least a quarter of the way from chance "
    "to 100 %, else weakly. Chance is the class's share of the training videos, or of the test videos of "
    "other classes that are taken for it, if that is more."
)


def verdict(low: float, chance: float) -> Verdict:
    """Verdict on a class according to :data:`RULE`."""
    if low <= chance:
        return "not"
    return "highly" if low >= chance + _HIGH * (1 - chance) else "weakly"
