"""Waveform preprocessing for audio teachers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ccl_cli.errors import PluginError

if TYPE_CHECKING:
    from ccl_cli.config.spec import Spec
    from ccl_cli.data.clips.window import Window
    from ccl_cli.teachers import Views

_LONGEST = 50_000.0  # seconds


@dataclass(frozen=True)
class Waveform:
    """Mono audio of fixed length around the centre of the clip.

    A shorter track is repeated up to that length. This hardly affects networks that pool over time, whereas
    padding with silence would.

    Attributes:
        rate: Sample rate in Hz.
        seconds: Length in seconds.
    """

    rate: int = 32_000
    seconds: float = 10.0
    # Exact if no track is longer than ``seconds``; otherwise the centre represents the track.
    views: ClassVar[Views] = "track"

    @property
    def shape(self) -> tuple[int]:
        """Shape of the input, [samples]."""
        return (round(self.rate * self.seconds),)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the input: float32, in [-1, 1]."""
        return torch.float32

    def __call__(self, window: Window) -> Tensor | None:
        """Return samples ``[rate * seconds]``, or None without a track or with a silent one."""
        samples = window.audio(rate=self.rate, seconds=self.seconds)
        if samples is None:
            return None
        (length,) = self.shape
        return samples.repeat(-(-length // len(samples)))[:length]


def check_seconds(spec: Spec, seconds: float, shortest: float) -> None:
    """Check the length of the audio that a teacher embeds.

    Raises:
        PluginError: it is shorter than ``shortest``, or too long for a tensor.
    """
    if not shortest <= seconds <= _LONGEST:
        raise PluginError(f"{spec.label}: seconds must be from {shortest} to {_LONGEST:g}, not {seconds:g}.")
