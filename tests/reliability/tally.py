"""What was tried how often, and survived how often."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# `benchmarks/reliability.py` sets both: the long part, and the folder that takes what was counted.
FULL, FOLDER = "CCL_TRIALS", "CCL_TALLY"


def full() -> bool:
    """Whether this is the long part."""
    return os.environ.get(FULL) == "full"


class Tally:
    """Trials of one test. A trial that fails does not end the test: all are made, then the test fails.

    Attributes:
        topic: The module's name without ``test_``.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.failures: list[str] = []
        self._tried: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._figures: dict[str, str] = {}

    @contextmanager
    def trial(self, what: str, case: object = "") -> Iterator[None]:
        """One trial of ``what``, a row of the table; ``case`` says how to repeat it (a seed, a moment)."""
        self._tried[what] = self._tried.get(what, 0) + 1
        try:
            yield
        except Exception as error:
            self._failed[what] = self._failed.get(what, 0) + 1
            self.failures.append(f"{what}, {case}: {type(error).__name__}: {error}")

    def count(self, what: str, tried: int, failed: int = 0) -> None:
        """Many trials at once, where one by one would cost more than the trials."""
        self._tried[what] = self._tried.get(what, 0) + tried
        self._failed[what] = self._failed.get(what, 0) + failed

    def figure(self, what: str, value: str) -> None:
        """What was measured, with its unit: a row of the table that is no count."""
        self._figures[what] = value

    def write(self, folder: Path) -> None:
        """Append the counts to a file of this process in ``folder``, a line a row."""
        rows = [
            {"topic": self.topic, "what": what, "tried": tried, "survived": tried - self._failed.get(what, 0)}
            for what, tried in self._tried.items()
        ]
        rows += [
            {"topic": self.topic, "what": what, "figure": value} for what, value in self._figures.items()
        ]
        with (folder / f"{os.getpid()}.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
