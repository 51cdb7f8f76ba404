"""A stretch of sound as a network's input: the usual preprocess of teachers that listen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ccl_cli.data.clips.window import Window
    from ccl_cli.teachers import Views


@dataclass(frozen=True)
class Waveform:
    """Mono sound around the window's centre, always ``seconds`` long.

    A shorter track is repeated up to that length: a network that takes means and maxima over time hardly
    notices, while it would hear silence.

    Attributes:
        rate: Samples per second, Hz.
        seconds: Length.
    """

    rate: int = 32_000
    seconds: float = 10.0
    # Exact where no track is longer than ``seconds``; of a longer one its middle stands for the whole.
    views: ClassVar[Views] = "track"

    @property
    def shape(self) -> tuple[int]:
        """[samples]."""
        return (round(self.rate * self.seconds),)

    @property
    def dtype(self) -> torch.dtype:
        """float32, in [-1, 1]."""
        return torch.float32

    def __call__(self, window: Window) -> Tensor | None:
        """Samples ``[rate * seconds]``, or None where there is no track or only silence."""
        samples = window.audio(rate=self.rate, seconds=self.seconds)
        if samples is None:
            return None
        (length,) = self.shape
        return samples.repeat(-(-length // len(samples)))[:length]
