from __future__ import annotations

import pytest

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import csv, folder, load_source, ucf
from ccl_cli.errors import DataError, RecipeError


def test_options_reach_the_source(tmp_path):
    for name in ("a", "b"):
        for number in range(4):
            path = tmp_path / "set" / name / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    manifest = load_source("folder", folder.load, str(tmp_path / "set"), {"test": 0.5, "split": "blocks"})
    assert isinstance(manifest, Manifest)
    assert len(manifest.split("test")) == 4


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        (folder.load, {"tset": 0.1}, "has no option 'tset'. Options: val, test, split, fold, folds, seed"),
        (csv.load, {"sep": ";"}, "has no option 'sep'. Options: root, delimiter"),
        (ucf.load_ucf51, {"location": "x"}, "has no option 'location'. Options: split, lists"),
        (folder.load, {"test": 1.5}, "test=1.5: Input should be less than 1"),
        (folder.load, {"test": "much"}, "test=much: Input should be a valid number"),
        (folder.load, {"split": "odd"}, "split=odd: Input should be 'random' or 'blocks'"),
        (ucf.load_ucf101, {"split": 4}, "split=4: Input should be less than or equal to 3"),
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
