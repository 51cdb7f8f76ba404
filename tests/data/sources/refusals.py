"""What a source says when it is asked for what is not there."""

from __future__ import annotations

import pytest

from ccl_cli.data.manifest import DataSource
from ccl_cli.errors import DataError


def refusal(load: DataSource, location: str = "") -> str:
    with pytest.raises(DataError) as caught:
        load(location)
    return str(caught.value)
