"""A picture of a batch: the student's view of each clip, and the input of each teacher.

Pillow draws it in a few hundredths of a second, so every run saves one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from ccl_cli.data.clips.batch import Batch, TeacherInput
from ccl_cli.data.manifest import UNLABELLED

_FRAMES = 4  # shown frames of a clip
_SPECTROGRAM = 256  # samples of a window of the spectrogram
# Pixels: a picture's height, a teacher's picture's width, between pictures, a line of text.
_SIDE, _WIDE, _GAP, _LINE = 144, 200, 8, 15


class Tile(NamedTuple):
    """A picture (None: the modality is absent), its caption and its width in pixels."""

    caption: str
    picture: Image.Image | None
    width: int


def sample_sheet(batch: Batch, classes: Sequence[str], ids: Sequence[str], count: int = 8) -> Image.Image:
    """Draw the first clips of a batch, one row each.

    Args:
        batch: Batch from the loader.
        classes: Class names by label.
        ids: Ids of the batch's videos.
        count: Largest number of rows.
    """
    rows = [clip_tiles(batch, row) for row in range(min(count, len(batch.labels)))]
    lefts = list(accumulate((tile.width + _GAP for tile in rows[0]), initial=_GAP))
    height = _SIDE + 2 * _LINE + _GAP
    sheet = Image.new("RGB", (lefts[-1], len(rows) * height + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, tiles in enumerate(rows):
        label, top = int(batch.labels[row]), _GAP + row * height
        name = "no label" if label == UNLABELLED else classes[label]
        pen.text((_GAP, top), f"{name}  ·  {ids[row][-40:]}", "black", font)
        for tile, left in zip(tiles, lefts, strict=False):
            if tile.picture is None:
                pen.text((left + tile.width // 2, top + _LINE + _SIDE // 2), "absent", "black", font, "mm")
            else:
                # As large as possible, with the original proportions and visible pixels.
                fitted = ImageOps.contain(tile.picture, (tile.width, _SIDE), Image.Resampling.NEAREST)
                sheet.paste(fitted, (left, top + _LINE))
            pen.text((left, top + _LINE + _SIDE), tile.caption, "black", font)
    return sheet


def clip_tiles(batch: Batch, row: int) -> list[Tile]:
    """Pictures of one clip: frames of the student's view, then the input of each teacher."""
    video = batch.video[row]
    frames = [
        Tile(f"frame {number}", Image.fromarray(video[:, number].permute(1, 2, 0).numpy()), _SIDE)
        for number in frame_numbers(video.shape[1])
    ]
    return frames + [_input_tile(name, given, row) for name, given in batch.inputs.items()]


def frame_numbers(frames: int) -> list[int]:
    """Numbers of the shown frames of a clip, evenly from the first to the last."""
    return sorted(set(np.linspace(0, frames - 1, min(_FRAMES, frames)).round().astype(int).tolist()))


def _input_tile(name: str, given: TeacherInput, row: int) -> Tile:
    """Draw a teacher's input by its shape: image, clip (centre frame), waveform, spectrogram, vector."""
    if not given.present[row]:
        return Tile(name, None, _WIDE)
    value = given.value[row].detach().float().nan_to_num(0, 0, 0)
    if value.dim() == 4:  # a clip, channels first or second
        frames = value if value.shape[1] == 3 else value.transpose(0, 1)
        value = frames[len(frames) // 2]
    caption = f"{name}  {' x '.join(map(str, value.shape))}"
    if value.dim() == 3 and value.shape[0] == 3:
        picture = Image.fromarray(_bytes(value).permute(1, 2, 0).numpy())
    elif value.dim() >= 2:
        picture = _heat_map(value.flatten(0, -2))
    elif len(value) > 2 * _SPECTROGRAM:
        picture = _heat_map(_spectrogram(value))
    else:
        picture = _curve(value)
    return Tile(caption, picture, _WIDE)


def _bytes(value: Tensor) -> Tensor:
    """Scale to [0, 255], for any normalisation."""
    low, high = value.min(), value.max()
    return ((value - low) / (high - low).clamp(min=1e-6) * 255).byte()


def _heat_map(value: Tensor) -> Image.Image:
    """Draw [rows, columns] in colours from black to yellow, with the first row at the bottom."""
    grey = Image.fromarray(_bytes(value.flip(0)).numpy()).resize((_WIDE, _SIDE), Image.Resampling.BILINEAR)
    return ImageOps.colorize(grey, black="#000004", mid="#b73779", white="#fcfdbf")


def _curve(value: Tensor) -> Image.Image:
    picture = Image.new("RGB", (_WIDE, _SIDE), "#f4f4f4")
    heights = (_SIDE - 1) * (1 - _bytes(value) / 255)
    places = torch.linspace(0, _WIDE - 1, len(value))
    ImageDraw.Draw(picture).line(list(zip(places.tolist(), heights.tolist(), strict=True)), "#3b528b")
    return picture


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
