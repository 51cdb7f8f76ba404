"""One picture of a batch: what the student sees of each clip, and what each teacher gets.

Pillow draws it in a few hundredths of a second, so that every run can leave one.
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

_FRAMES = 4  # of a clip that are shown
_SPECTROGRAM = 256  # samples of a window; as many as a small waveform has
# Pixels: a picture's height, a teacher's picture's width, between pictures, a line of text.
_SIDE, _WIDE, _GAP, _LINE = 144, 200, 8, 15


class Tile(NamedTuple):
    """A picture, None where the modality is absent, and what stands under it."""

    caption: str
    picture: Image.Image | None
    width: int


def sample_sheet(batch: Batch, classes: Sequence[str], ids: Sequence[str], count: int = 8) -> Image.Image:
    """Draw the first clips of a batch, one row each.

    Args:
        batch: As the loader gives it: the student's frames are bytes.
        classes: Names, by label.
        ids: Of the batch's videos.
        count: Rows at most.
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
                # As large as fits: frames and images keep their shape, and their pixels stay to be seen.
                fitted = ImageOps.contain(tile.picture, (tile.width, _SIDE), Image.Resampling.NEAREST)
                sheet.paste(fitted, (left, top + _LINE))
            pen.text((left, top + _LINE + _SIDE), tile.caption, "black", font)
    return sheet


def clip_tiles(batch: Batch, row: int) -> list[Tile]:
    """The pictures of one clip: frames of the student's view, then each teacher's input."""
    video = batch.video[row]
    frames = [
        Tile(f"frame {number}", Image.fromarray(video[:, number].permute(1, 2, 0).numpy()), _SIDE)
        for number in frame_numbers(video.shape[1])
    ]
    return frames + [_input_tile(name, given, row) for name, given in batch.inputs.items()]


def frame_numbers(frames: int) -> list[int]:
    """The frames of a clip that are shown, evenly from the first to the last."""
    return sorted(set(np.linspace(0, frames - 1, min(_FRAMES, frames)).round().astype(int).tolist()))


def _input_tile(name: str, given: TeacherInput, row: int) -> Tile:
    """A teacher's input by its shape: image, clip (its centre frame), waveform, spectrogram, numbers."""
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
    """To [0, 255], whatever a teacher's normalisation is."""
    low, high = value.min(), value.max()
    return ((value - low) / (high - low).clamp(min=1e-6) * 255).byte()


def _heat_map(value: Tensor) -> Image.Image:
    """[rows, columns], the first row below, in colours from black to yellow."""
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
