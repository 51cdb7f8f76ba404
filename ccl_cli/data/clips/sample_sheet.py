"""A picture of a batch: the student's view of each clip, and the input of each teacher.

Pillow draws it in a few hundredths of a second, so every run saves one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from ccl_cli.data.clips.batch import Batch, TeacherInput
from ccl_cli.data.manifest import UNLABELLED

_FRAMES = 4  # shown frames of a clip
_SPECTROGRAM = 256  # samples of a window of the spectrogram
_WIDTH, _HEIGHT, _GAP, _LINE = 176, 144, 8, 15  # pixels: a picture, between pictures, a line of text


def sample_sheet(batch: Batch, classes: Sequence[str], ids: Sequence[str], count: int = 8) -> Image.Image:
    """Draw the first clips of a batch, one row each.

    Args:
        batch: Batch from the loader.
        classes: Class names by label.
        ids: Ids of the batch's videos.
        count: Largest number of rows.
    """
    rows = [_pictures(batch, row) for row in range(min(count, len(batch.labels)))]
    height = _HEIGHT + 2 * _LINE + _GAP
    size = len(rows[0]) * (_WIDTH + _GAP) + _GAP, len(rows) * height + _GAP
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, pictures in enumerate(rows):
        label, top = int(batch.labels[row]), _GAP + row * height
        name = "no label" if label == UNLABELLED else classes[label]
        pen.text((_GAP, top), f"{name}  ·  {ids[row][-40:]}", "black", font)
        for column, (caption, picture) in enumerate(pictures.items()):
            left = _GAP + column * (_WIDTH + _GAP)
            pen.text((left, top + _LINE + _HEIGHT), caption, "black", font)
            if picture is None:
                pen.text((left + _WIDTH // 2, top + _LINE + _HEIGHT // 2), "absent", "black", font, "mm")
            else:
                # As large as possible, with the original proportions and visible pixels.
                fitted = ImageOps.contain(picture, (_WIDTH, _HEIGHT), Image.Resampling.NEAREST)
                sheet.paste(fitted, (left, top + _LINE))
    return sheet


def _pictures(batch: Batch, row: int) -> dict[str, Image.Image | None]:
    """Pictures of one clip by caption: frames of the student's view, then the input of each teacher."""
    video = batch.video[row]
    pictures: dict[str, Image.Image | None] = {
        f"frame {number}": _image(video[:, number]) for number in frame_numbers(video.shape[1])
    }
    return pictures | dict(_input(name, given, row) for name, given in batch.inputs.items())


def frame_numbers(frames: int) -> list[int]:
    """Numbers of the shown frames of a clip, evenly from the first to the last."""
    return sorted(set(np.linspace(0, frames - 1, min(_FRAMES, frames)).round().astype(int).tolist()))


def _input(name: str, given: TeacherInput, row: int) -> tuple[str, Image.Image | None]:
    """Draw a teacher's input by its shape: image, clip (centre frame), waveform, spectrogram, vector."""
    if not given.present[row]:
        return name, None
    value = given.value[row].detach().float().nan_to_num(0, 0, 0)
    if value.dim() == 4:  # a clip, channels first or second
        frames = value if value.shape[1] == 3 else value.transpose(0, 1)
        value = frames[len(frames) // 2]
    caption = f"{name}  {' x '.join(map(str, value.shape))}"
    if value.dim() == 3 and value.shape[0] == 3:
        return caption, _image(_bytes(value))
    if value.dim() == 1:
        value = _spectrogram(value) if len(value) > 2 * _SPECTROGRAM else value[None]
    grey = Image.fromarray(_bytes(value.flatten(0, -2).flip(0)).numpy())
    large = grey.resize((_WIDTH, _HEIGHT), Image.Resampling.BILINEAR)
    return caption, ImageOps.colorize(large, black="#000004", mid="#b73779", white="#fcfdbf")


def _image(frame: Tensor) -> Image.Image:
    return Image.fromarray(frame.permute(1, 2, 0).numpy())


def _bytes(value: Tensor) -> Tensor:
    """Scale to [0, 255], for any normalisation."""
    low, high = value.min(), value.max()
    return ((value - low) / (high - low).clamp(min=1e-6) * 255).byte()


def _spectrogram(waveform: Tensor) -> Tensor:
    """[frequency, time] in decibels."""
    spectrum = torch.stft(
        waveform,
        _SPECTROGRAM,
        hop_length=max(_SPECTROGRAM // 4, len(waveform) // 400),
        window=torch.hann_window(_SPECTROGRAM),
        return_complex=True,
    )
    return 20 * (spectrum.abs() + 1e-5).log10()
