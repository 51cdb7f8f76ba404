from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability.tally import FOLDER, Tally, full


@pytest.fixture
def trials() -> Callable[[int, int], range]:
    """``trials(3, 100)``: the numbers of the trials, three in the checks of every change, a hundred in the long part."""
    return lambda quick, long: range(long if full() else quick)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Counts what the test tries; fails it in the end if a trial failed."""
    counted = Tally(Path(request.path).stem.removeprefix("test_"))
    yield counted
    if folder := os.environ.get(FOLDER):
        counted.write(Path(folder))
    if counted.failures:
        pytest.fail(
            f"{len(counted.failures)} trials failed:\n" + "\n".join(counted.failures[:20]), pytrace=False
        )
