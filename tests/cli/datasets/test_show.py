"""``ccl data show``: one picture of what a run would train on."""

from __future__ import annotations

import pytest
from PIL import Image

SMALL = ("--set", "clip.size=16", "--set", "clip.short_side=16", "--set", "clip.frames=4")


def test_a_picture_of_training_clips(ccl, clips_folder, tmp_path):
    output = tmp_path / "look.png"
    result = ccl(
        "data", "show", f"folder:{clips_folder / 'set'}", "--clips", "3", "--output", str(output), *SMALL
    )
    assert (result.code, result.out.strip()) == (0, str(output))
    with Image.open(output) as picture:
        assert picture.format == "PNG"
        assert picture.height > 300


@pytest.mark.parametrize(
    ("words", "code", "match"),
    [(("nowhere:x",), 5, "No dataset 'nowhere'"), (("folder:absent",), 4, "no folder 'absent'")],
)
def test_what_cannot_be_shown_leaves_no_file(ccl, tmp_path, monkeypatch, words, code, match):
    monkeypatch.chdir(tmp_path)
    result = ccl("data", "show", *words)
    assert result.code == code
    assert match in result.err
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(ccl, clips_folder, tmp_path):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "look.png"
    result = ccl("data", "show", f"folder:{clips_folder / 'set'}", "--output", str(output), *SMALL)
    assert result.code == 6
    assert "cannot be written" in result.err
