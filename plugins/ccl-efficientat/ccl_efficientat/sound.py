"""EfficientAT's log-mel spectrogram."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

RATE = 32_000  # Hz
MELS = 128
SHORTEST = 0.1  # seconds; reflection padding needs more samples than half an FFT
_WINDOW, _HOP, _FFT = 800, 320, 1024  # samples
_HIGHEST = 15_000.0  # Hz, upper end of the last filter; the first starts at 0
_EMPHASIS = 0.97
_FLOOR, _SHIFT, _SCALE = 1e-5, 4.5, 5.0
_MEL, _CORNER = 1127.0, 700.0  # mel(f) = 1127 log(1 + f / 700 Hz)


class LogMel(nn.Module):
    """EfficientAT's log-mel spectrogram for inference.

    Pre-emphasis, STFT with windows of 25 ms every 10 ms, 128 Kaldi mel filters from 0 to 15 kHz, logarithm,
    and normalisation with fixed constants.
    """

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("cpu"):  # also if the network is built on the meta device
            self.register_buffer("window", torch.hann_window(_WINDOW, periodic=False), persistent=False)
            self.register_buffer("filters", mel_filters(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples ``[B, samples]`` at 32 kHz to ``[B, 128, frames]``, always float32."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            x = x[:, 1:] - _EMPHASIS * x[:, :-1]
            spectrum = torch.stft(x, _FFT, _HOP, _WINDOW, self.window, return_complex=True)
            power = torch.view_as_real(spectrum).square().sum(dim=-1)  # [B, bins, frames]
            mel: Tensor = ((self.filters @ power + _FLOOR).log() + _SHIFT) / _SCALE
            return mel


def mel_filters() -> Tensor:
    """Kaldi's filters, triangular on the mel scale, ``[128, 513]``; the last bin is in none of them."""
    mel = _MEL * (1.0 + torch.arange(_FFT // 2 + 1) * (RATE / _FFT) / _CORNER).log()
    step = _MEL * math.log(1.0 + _HIGHEST / _CORNER) / (MELS + 1)
    left, centre, right = (torch.arange(at, at + MELS)[:, None] * step for at in range(3))
    return torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0.0)
