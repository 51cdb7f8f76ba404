"""The picture of a batch: one row a clip, each input drawn by its shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ImageDraw

from ccl_cli.data.clips.batch import Batch, TeacherInput
from ccl_cli.data.clips.sample_sheet import clip_tiles, frame_numbers, sample_sheet

INPUTS = {
    "image:a": torch.rand(3, 3, 24, 24),
    "audio:wave": torch.randn(3, 16000),
    "audio:mel": torch.randn(3, 1, 64, 100),
    "video:clip": torch.rand(3, 8, 3, 24, 24),
    "text:a": torch.randn(3, 12),
}


def batch(inputs: dict[str, torch.Tensor], absent: int = 1) -> Batch:
    present = torch.arange(3) != absent
    given = {name: TeacherInput(value, present) for name, value in inputs.items()}
    video = torch.randint(0, 256, (3, 3, 8, 20, 20), dtype=torch.uint8)
    return Batch(video, torch.tensor([0, 1, 0]), torch.arange(3), given, 0)


@pytest.fixture
def written(monkeypatch):
    """What is written into pictures."""
    texts = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda pen, place, text, *rest: texts.append(text))
    return texts


@pytest.mark.parametrize("count", [2, 8])
def test_a_row_for_each_clip_with_its_label_and_every_teachers_input(written, count):
    sheet = sample_sheet(batch(INPUTS), ("wave", "jump"), ["a/v1", "b/v2", "c/v3"], count)
    rows = min(count, 3)
    assert [text for text in written if "·" in text] == ["wave  ·  a/v1", "jump  ·  b/v2", "wave  ·  c/v3"][
        :rows
    ]
    assert written.count("frame 7") == rows
    assert written.count("absent") == len(INPUTS)
    assert [text for text in written if ":" in text][: len(INPUTS)] == [
        "image:a  3 x 24 x 24",
        "audio:wave  16000",
        "audio:mel  1 x 64 x 100",
        "video:clip  3 x 24 x 24",
        "text:a  12",
    ]
    assert sheet.height == pytest.approx(182 * rows, abs=10)


def test_every_picture_shows_something_in_the_place_of_its_caption():
    sheet = sample_sheet(batch(INPUTS, absent=2), ("wave", "jump"), ["a", "b", "c"], 2)
    pixels = np.asarray(sheet).astype(int)
    left = 8 + 4 * 152
    for number in range(len(INPUTS)):
        place = pixels[40:160, left + 208 * number + 5 : left + 208 * number + 130]
        assert place.std() > 5


def test_the_students_frames_are_those_of_its_clip():
    drawn = batch({})
    for row in range(3):
        tiles = clip_tiles(drawn, row)
        for tile, number in zip(tiles, (0, 2, 5, 7), strict=True):
            assert tile.caption == f"frame {number}"
            assert (np.asarray(tile.picture) == drawn.video[row, :, number].permute(1, 2, 0).numpy()).all()


def test_inputs_that_are_not_finite_or_all_alike_are_drawn():
    values = {"image:a": torch.full((3, 3, 8, 8), torch.nan), "audio:mel": torch.zeros(3, 1, 8, 8)}
    sheet = sample_sheet(batch(values), ("wave", "jump"), ["a", "b", "c"])
    assert sheet.width > 600


@pytest.mark.parametrize(("frames", "numbers"), [(1, [0]), (2, [0, 1]), (16, [0, 5, 10, 15])])
def test_short_clips_show_all_of_their_frames(frames, numbers):
    assert frame_numbers(frames) == numbers
