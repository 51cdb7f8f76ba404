from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference values and real clips kept beside the project; not part of it."""
    if not SHARED.is_dir():
        pytest.skip("the folder with reference values and real clips is not beside the project")
    return SHARED
