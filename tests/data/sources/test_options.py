from __future__ import annotations

import pytest

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import folder, load_source, ucf
from ccl_cli.errors import DataError, RecipeError


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        (folder.load, {"tset": 0.1}, "has no option 'tset'. Options: val, test, split, fold, folds, seed"),
        (ucf.load_ucf51, {"location": "x"}, "has no option 'location'. Options: split, lists"),
        (folder.load, {"test": 1.5}, "test=1.5: Input should be less than 1"),
        (folder.load, {"test": "much"}, "test=much: Input should be a valid number"),
    ],
)
def test_wrong_options_are_named_before_anything_is_read(source, options, reason):
    with pytest.raises(RecipeError, match=reason):
        load_source("name", source, "nowhere", options)


def test_a_source_without_options_says_so():
    def load(location: str) -> Manifest:
        raise DataError(f"{location} is empty")

    with pytest.raises(RecipeError, match="takes no options"):
        load_source("mine", load, "here", {"a": 1})
    with pytest.raises(DataError, match="here is empty"):
        load_source("mine", load, "here", {})
