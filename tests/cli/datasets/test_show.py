"""``ccl data show``: one picture of what a run would train on."""

from __future__ import annotations

import pytest
from PIL import Image

SMALL = ("--set", "clip.size=16", "--set", "clip.short_side=16", "--set", "clip.frames=4")


def test_a_picture_of_training_clips(ccl, clips_folder):
    data = f"folder:{clips_folder / 'set'}"
    result = ccl("data", "show", data, "--clips", "3", "--output", "look.png", *SMALL)
    assert (result.code, result.out.strip()) == (0, "look.png")
    with Image.open("look.png") as picture:
        assert picture.format == "PNG"
        assert picture.height > 300
    assert ccl("data", "show", data, "--output", "look.png/look.png", *SMALL).code == 6


@pytest.mark.parametrize(
    ("data", "code", "error"),
    [("nowhere:x", 5, "No dataset 'nowhere'"), ("folder:absent", 4, "no folder 'absent'")],
)
def test_what_cannot_be_shown_leaves_no_file(ccl, tmp_path, data, code, error):
    result = ccl("data", "show", data)
    assert (result.code, error in result.err) == (code, True)
    assert not list(tmp_path.iterdir())
