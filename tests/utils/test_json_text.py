"""What is left of a record that somebody has damaged."""

import math

import pytest

from ccl_cli.utils.json_text import fitting

SHAPE = {"seed": int, "seconds": float, "names": [str], "data": {"*": {"count": int}}}
GOOD = {
    "seed": [2**63 - 1],
    "seconds": [3, 0.5],
    "names": [[], ["a", "\udcff"]],
    "data": [{}, {"x": {"count": 1}}],
}
BAD = {
    "seed": [True, 1.0, "1", None, 2**63],
    "seconds": [True, "1", math.inf, math.nan, 10**400],
    "names": [None, "a", {}, [1]],
    "data": [[], 1],
}


@pytest.mark.parametrize("key", SHAPE)
def test_what_does_not_fit_goes_alone(key):
    for value in GOOD[key]:
        assert fitting({key: value, "other": None}, SHAPE) == {key: value, "other": None}
    for value in BAD[key]:
        assert fitting({key: value, "other": None}, SHAPE) == {"other": None}
    assert fitting({"data": {"x": 1, "y": {"count": "1", "more": []}}}, SHAPE) == {
        "data": {"y": {"more": []}}
    }
