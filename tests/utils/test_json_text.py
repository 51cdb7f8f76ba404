"""Shapes of JSON values."""

import pytest

from ccl_cli.utils.json_text import fits


@pytest.mark.parametrize("value", [[], [0], [1, -5], [2**63 - 1, 1 - 2**63]])
def test_a_list_of_whole_numbers_fits(value):
    assert fits(value, [int])
    assert fits({"sizes": value}, {"sizes": ([int], type(None))})


@pytest.mark.parametrize(
    "value", [None, 1, "1", {}, [True], [1, 1.0], [None], ["1"], [[1]], [2**63], [0, -(2**63)]]
)
def test_what_is_not_a_list_of_whole_numbers_of_64_bits_does_not_fit(value):
    assert not fits(value, [int])
    assert not fits({"sizes": value}, {"sizes": [int]})
