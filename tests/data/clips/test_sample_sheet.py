"""The picture of a batch: one row a clip, each input drawn by its shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ImageDraw

from ccl_cli.data.clips.batch import Batch, TeacherInput
from ccl_cli.data.clips.sample_sheet import frame_numbers, sample_sheet

INPUTS = {
    "image:a": torch.rand(3, 3, 24, 24),
    "audio:wave": torch.randn(3, 16000),
    "audio:mel": torch.randn(3, 1, 64, 100),
    "video:clip": torch.rand(3, 8, 3, 24, 24),
    "text:a": torch.randn(3, 12),
}


def sheet(inputs: dict[str, torch.Tensor], absent: int, count: int = 8):
    present = torch.arange(3) != absent
    given = {name: TeacherInput(value, present) for name, value in inputs.items()}
    video = torch.randint(0, 256, (3, 3, 8, 20, 20), dtype=torch.uint8)
    batch = Batch(video, torch.tensor([0, 1, -1]), torch.arange(3), given, 0)
    return video, sample_sheet(batch, ("wave", "jump"), ["a/v1", "b/v2", "c/v3"], count)


@pytest.mark.parametrize("count", [2, 8])
def test_a_row_for_each_clip_with_its_label_and_every_teachers_input(monkeypatch, count):
    texts, rows = [], min(count, 3)
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda pen, place, text, *rest: texts.append(text))
    _, picture = sheet(INPUTS, 1, count)
    labels = ["wave  ·  a/v1", "jump  ·  b/v2", "no label  ·  c/v3"]
    assert [text for text in texts if "·" in text] == labels[:rows]
    assert texts.count("frame 7") == rows
    assert texts.count("absent") == len(INPUTS)
    shapes = ["3 x 24 x 24", "16000", "1 x 64 x 100", "3 x 24 x 24", "12"]
    captions = [f"{name}  {shape}" for name, shape in zip(INPUTS, shapes, strict=True)]
    assert [text for text in texts if ":" in text][: len(INPUTS)] == captions
    assert picture.height == pytest.approx(182 * rows, abs=10)


def test_the_students_frames_are_those_of_its_clip_and_every_input_shows_something():
    video, picture = sheet(INPUTS, 2, 2)
    pixels = np.asarray(picture).astype(int)
    for place, number in enumerate((0, 2, 5, 7)):
        corner = pixels[8 + 15 + 3, 8 + 184 * place + 3]
        assert (corner == video[0, :, number, 0, 0].numpy()).all()
    for number in range(len(INPUTS)):
        left = 8 + 184 * (4 + number)
        assert pixels[40:160, left + 5 : left + 130].std() > 5


def test_inputs_that_are_not_finite_or_all_alike_are_drawn():
    values = {"image:a": torch.full((3, 3, 8, 8), torch.nan), "audio:mel": torch.zeros(3, 1, 8, 8)}
    assert sheet(values, 1)[1].width > 600


@pytest.mark.parametrize(("frames", "numbers"), [(1, [0]), (2, [0, 1]), (16, [0, 5, 10, 15])])
def test_short_clips_show_all_of_their_frames(frames, numbers):
    assert frame_numbers(frames) == numbers
