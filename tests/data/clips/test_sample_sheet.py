"""The picture of a batch: one row a clip, each input drawn by its shape."""

from __future__ import annotations

import io

import pytest
import torch

from ccl_cli.data.clips.batch import Batch, TeacherInput
from ccl_cli.data.clips.sample_sheet import frame_numbers, sample_sheet

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


@pytest.mark.parametrize("count", [2, 8])
def test_a_row_for_each_clip_with_its_label_and_every_teachers_input(count):
    figure = sample_sheet(batch(INPUTS), ("wave", "jump"), ["a/v1", "b/v2", "c/v3"], count)
    rows = min(count, 3)
    assert len(figure.axes) == rows * (4 + len(INPUTS))
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles == ["wave  ·  a/v1", "jump  ·  b/v2", "wave  ·  c/v3"][:rows]
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == list(INPUTS)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["absent"] * len(INPUTS)
    figure.savefig(buffer := io.BytesIO(), format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_the_students_frames_are_those_of_its_clip():
    drawn = batch({})
    figure = sample_sheet(drawn, ("wave", "jump"), ["a", "b", "c"])
    numbers = frame_numbers(8)
    assert numbers == [0, 2, 5, 7]
    for axes, number in zip(figure.axes, numbers, strict=False):
        [image] = axes.images
        assert (image.get_array() == drawn.video[0, :, number].permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize(("frames", "numbers"), [(1, [0]), (2, [0, 1]), (16, [0, 5, 10, 15])])
def test_short_clips_show_all_of_their_frames(frames, numbers):
    assert frame_numbers(frames) == numbers
