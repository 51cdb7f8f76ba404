from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.warm import warm_ccl


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Iterator[Path]:
    """A folder with a ``ccl`` that starts at once."""
    with warm_ccl(tmp_path_factory.mktemp("warm") / "ccl") as folder:
        yield folder
