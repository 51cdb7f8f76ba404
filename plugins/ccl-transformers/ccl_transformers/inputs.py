"""Preprocessing with the model's own processor. Data loader workers import this module, but no networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ccl_cli.data.clips.window import Window
    from ccl_cli.teachers import Views

SHORTEST = 0.1  # seconds; the first window of a spectrogram needs 25 ms


@dataclass(frozen=True)
class Picture:
    """One frame of the clip: a random one in training, the centre one in evaluation.

    Attributes:
        processor: An image processor of transformers.
        shape: Shape of its output, [3, height, width].
    """

    processor: Any
    shape: tuple[int, ...]
    dtype: ClassVar[torch.dtype] = torch.float32
    views: ClassVar[Views] = "frame"

    def __call__(self, window: Window) -> Tensor:
        """Return an image ``[3, height, width]``."""
        count = len(window.frames)
        number = int(window.rng.integers(count)) if window.training else count // 2
        return process_frames(self.processor, window.frames[number, None])[0]


@dataclass(frozen=True)
class FrameSequence:
    """The network's number of frames, evenly spaced over the clip; frames of shorter clips are repeated.

    Attributes:
        processor: A video processor of transformers, or an image processor, which is applied to each frame.
        shape: Shape of its output, [frames, 3, height, width].
    """

    processor: Any
    shape: tuple[int, ...]
    dtype: ClassVar[torch.dtype] = torch.float32
    views: ClassVar[Views] = "clip"

    def __call__(self, window: Window) -> Tensor:
        """Return frames ``[frames, 3, height, width]``."""
        numbers = torch.linspace(0, len(window.frames) - 1, self.shape[0]).round().long()
        return process_frames(self.processor, window.frames[numbers])


@dataclass(frozen=True)
class Sound:
    """Mono audio around the clip's centre, at the processor's sample rate.

    Attributes:
        processor: A feature extractor of transformers.
        seconds: Length of the segment in seconds.
        shortest: Shorter tracks are repeated up to this many seconds; the processor pads to ``seconds``.
        shape: Shape of the processor's output.
    """

    processor: Any
    seconds: float
    shortest: float
    shape: tuple[int, ...]
    dtype: ClassVar[torch.dtype] = torch.float32
    views: ClassVar[Views] = "track"

    def __call__(self, window: Window) -> Tensor | None:
        """Return the processor's features, or None without a track or with a silent one."""
        samples = window.audio(rate=self.processor.sampling_rate, seconds=self.seconds)
        if samples is None or not len(samples):
            return None
        return process_sound(self.processor, samples, self.seconds, self.shortest)


def process_frames(processor: Any, frames: Tensor) -> Tensor:
    """Process frames ``[T, H, W, 3]`` uint8 to ``[T, 3, height, width]`` float32."""
    output = processor(list(frames.numpy()), return_tensors="pt")
    value: Tensor = next(value for name, value in output.items() if name.startswith("pixel_values"))
    return value.reshape(len(frames), *value.shape[-3:]).float()


def process_sound(processor: Any, samples: Tensor, seconds: float, shortest: float) -> Tensor:
    """Extract the features of one track from samples ``[n]``; float32, shape as the feature extractor's."""
    rate = processor.sampling_rate
    least, most = round(rate * shortest), round(rate * seconds)
    samples = samples.repeat(max(1, -(-least // len(samples))))[: max(least, min(len(samples), most))]
    output = processor(np.ascontiguousarray(samples.numpy()), sampling_rate=rate, return_tensors="pt")
    features: Tensor = output[processor.model_input_names[0]][0]
    return features.float()
