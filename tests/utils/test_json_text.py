"""What is left of a record that somebody has damaged."""

import math

import pytest

from ccl_cli.utils.json_text import fitting

SHAPE = {"seed": int, "seconds": float, "names": [str], "data": {"*": {"count": int}}}


@pytest.mark.parametrize(
    "value",
    [
        {"seed": 2**63 - 1, "seconds": 3, "names": [], "data": {}, "other": None},
        {"seconds": 0.5, "names": ["a", "\udcff"], "data": {"\udcff": {"count": 1, "more": []}}},
    ],
)
def test_what_fits_stays(value):
    assert fitting(value, SHAPE) == value


@pytest.mark.parametrize(
    "value",
    [
        *({"seed": wrong} for wrong in (True, 1.0, "1", None, 2**63, -(2**63))),
        *({"seconds": wrong} for wrong in (True, "1", math.inf, math.nan, 10**400)),
        *({"names": wrong} for wrong in (None, "a", {}, [1], ["a", None])),
        *({"data": wrong} for wrong in ([], 1)),
        *({"data": {"x": wrong}} for wrong in ([], 1)),
    ],
)
def test_what_does_not_fit_goes_alone(value):
    (key,) = value
    left = fitting(value | {"other": 1}, SHAPE)
    assert left == ({"other": 1} | ({"data": {}} if isinstance(value[key], dict) and value[key] else {}))
