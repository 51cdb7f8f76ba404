"""Mel spectrograms of the built-in audio teachers."""

from __future__ import annotations

import torch
import torchaudio.functional as audio
from torch import Tensor, nn


class MelSpectrogram(nn.Module):
    """Power spectrogram with Slaney's mel filters, for sound of one sample rate.

    Args:
        rate: Sample rate in Hz.
        fft: Length of a window in samples.
        hop: Samples between windows.
        mels: Number of filters.
        low: Lower end of the first filter in Hz.
        high: Upper end of the last filter in Hz.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, rate: int, fft: int, hop: int, mels: int, low: float, high: float) -> None:
        super().__init__()
        self.fft, self.hop = fft, hop
        with torch.device("cpu"):  # also if the network is built on the meta device
            filters = audio.melscale_fbanks(fft // 2 + 1, low, high, mels, rate, "slaney", "slaney")
            # Not in the state dict, because published files have other names for them.
            self.register_buffer("window", torch.hann_window(fft), persistent=False)
            self.register_buffer("filters", filters, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map samples ``[B, samples]`` to ``[B, frames, mels]``, always float32."""
        with torch.autocast(x.device.type, enabled=False):
            power = audio.spectrogram(x.float(), 0, self.window, self.fft, self.hop, self.fft, 2.0, False)
            mel: Tensor = power.transpose(1, 2) @ self.filters
            return mel
