"""What the networks see of a clip, made by the model's own processor; workers import this and no networks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ccl_cli.errors import PluginError

if TYPE_CHECKING:
    from ccl_cli.data.clips.window import Window
    from ccl_cli.teachers import Views

SHORTEST = 0.1  # seconds; the first window of a spectrogram takes 25 ms
_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\s]+")


@dataclass(frozen=True)
class Picture:
    """One frame of the window: a random one in training, the middle one in evaluation.

    Attributes:
        processor: An image processor of transformers.
        shape: Of what it makes, [3, height, width].
    """

    processor: Any
    shape: tuple[int, ...]
    dtype: ClassVar[torch.dtype] = torch.float32
    views: ClassVar[Views] = "frame"

    def __call__(self, window: Window) -> Tensor:
        """A picture ``[3, height, width]``; a window always has one."""
        count = len(window.frames)
        number = int(window.rng.integers(count)) if window.training else count // 2
        return process_frames(self.processor, window.frames[number, None])[0]


@dataclass(frozen=True)
class FrameSequence:
    """As many frames as the network takes, evenly spaced over the window.

    A window of fewer frames shows some of them several times.

    Attributes:
        processor: A video processor of transformers, or an image processor, which takes each frame.
        shape: Of what it makes, [frames, 3, height, width].
    """

    processor: Any
    shape: tuple[int, ...]
    dtype: ClassVar[torch.dtype] = torch.float32
    views: ClassVar[Views] = "clip"

    def __call__(self, window: Window) -> Tensor:
        """Frames ``[frames, 3, height, width]``; a window always has some."""
        wanted = torch.linspace(0, len(window.frames) - 1, self.shape[0]).round().long()
        return process_frames(self.processor, window.frames[wanted])


@dataclass(frozen=True)
class Sound:
    """Mono sound around the window's centre, at the rate that the processor wants.

    Attributes:
        processor: A feature extractor of transformers.
        seconds: Length of the stretch; one embedding serves a track that is not longer.
        shortest: Seconds up to which a shorter track is repeated, before the processor pads it its own way.
        shape: Of what it makes.
    """

    processor: Any
    seconds: float
    shortest: float
    shape: tuple[int, ...]
    dtype: ClassVar[torch.dtype] = torch.float32
    views: ClassVar[Views] = "track"

    def __call__(self, window: Window) -> Tensor | None:
        """The processor's features, or None where there is no track or only silence."""
        samples = window.audio(rate=self.processor.sampling_rate, seconds=self.seconds)
        if samples is None or not len(samples):
            return None
        return process_sound(self.processor, samples, self.seconds, self.shortest)


@dataclass(frozen=True)
class ClassNames:
    """Which sentence goes with the video: that of its class.

    Attributes:
        prompt: With ``{}`` for the class's name.
        classes: Of the data set, by label.
    """

    prompt: str
    classes: tuple[str, ...] = ()
    shape: ClassVar[tuple[int]] = (1,)
    dtype: ClassVar[torch.dtype] = torch.int64
    views: ClassVar[Views] = "track"

    @property
    def sentences(self) -> list[str]:
        """One for each class; ``ApplyEyeMakeup`` and ``apply_eye_makeup`` in words."""
        words = (_WORD_BOUNDARY.sub(" ", name).strip() for name in self.classes)
        return [self.prompt.replace("{}", name) for name in words]

    def __call__(self, window: Window) -> Tensor | None:
        """The class's number ``[1]``, from 1 on: 0 stands for a video without a class, which gives None."""
        label = window.video.label
        if label is None:
            return None
        if label >= len(self.classes):
            raise PluginError("The text teacher was not given the names of the classes.")
        return torch.tensor([label + 1])


def process_frames(processor: Any, frames: Tensor) -> Tensor:
    """Frames ``[T, H, W, 3]`` uint8 through a processor: ``[T, 3, height, width]`` float32."""
    made = processor(list(frames.numpy()), return_tensors="pt")
    value: Tensor = next(value for name, value in made.items() if name.startswith("pixel_values"))
    return value.reshape(len(frames), *value.shape[-3:]).float()


def process_sound(processor: Any, samples: Tensor, seconds: float, shortest: float) -> Tensor:
    """Samples ``[n]`` through a feature extractor; its features of one track, float32."""
    rate = processor.sampling_rate
    least, most = round(rate * shortest), round(rate * seconds)
    samples = samples.repeat(max(1, -(-least // len(samples))))[: max(least, min(len(samples), most))]
    made = processor(np.ascontiguousarray(samples.numpy()), sampling_rate=rate, return_tensors="pt")
    features: Tensor = made[processor.model_input_names[0]][0]
    return features.float()
