"""``audio:small`` and ``image:small``: networks that ``ccl teachers fit`` trains in seconds on a CPU.

They have no published weights. By default they load the weights that `ccl teachers fit` trained on the
synthetic data set.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers import Preprocess
from ccl_cli.teachers.classifier import ClassifierTeacher
from ccl_cli.teachers.fitted import default_path
from ccl_cli.teachers.waveform import Waveform, check_seconds
from ccl_plugins.mel import MelSpectrogram
from ccl_plugins.picture import Picture

RATE = 16_000  # Hz
_FFT, _HOP, _MELS, _LOW, _HIGH = 512, 250, 32, 50.0, 8_000.0
_SHORTEST = 15 * _HOP / RATE  # seconds: 16 frames, which four blocks halve
_UNNAMED = ("?", "?")  # classes of a network with random weights


class _Small(ClassifierTeacher):
    """Four blocks of convolution, batch norm, ReLU and max pooling, then global average pooling.

    The embedding is non-negative and scaled to a length of about 1. Composition heads do not normalise it,
    and a length of 10 makes training unstable at the learning rates of small students. A linear classifier
    follows.
    """

    labels: ClassVar[str]  # labels of the synthetic data set to train on
    channels: ClassVar[int]
    widths: ClassVar[tuple[int, int, int]]
    classifier_name = "classifier"

    def __init__(self, dim: int, classes: Sequence[str], preprocess: Preprocess) -> None:
        super().__init__()
        self.dim, self.classes, self.preprocess = dim, tuple(classes), preprocess
        widths = (self.channels, *self.widths, dim)
        self.blocks = nn.ModuleList(_block(*pair) for pair in pairwise(widths))
        self.classifier = nn.Linear(dim, len(self.classes))

    @classmethod
    def build(cls, spec: Spec, classes: Sequence[str] | None, options: Mapping[str, Any]) -> Self:
        """See :meth:`ClassifierTeacher.build`."""
        if options["dim"] < 1:
            raise PluginError(f"{spec.label}: dim must be above 0, not {options['dim']}.")
        teacher = cls(options["dim"], classes or _UNNAMED, cls.make_preprocess(spec, options))
        teacher.variant = f"{spec.label}?{'&'.join(f'{name}={options[name]}' for name in cls.defaults)}"
        return teacher

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Build the teacher; by default with the weights that were fitted to the synthetic data set."""
        if not spec.weights and spec.options.get("weights", "") == "":
            data = f"synthetic-{cls.labels}"
            path = default_path(spec.kind, spec.name, data)
            if not path.is_file():
                raise WeightsError(
                    f"The weights of {spec.label} are not on this machine: {path.name}.",
                    f"Run `ccl teachers fit {spec.label} --data 'synthetic?labels={cls.labels}'`, or give a "
                    "file after '@'.",
                )
            spec = replace(spec, options=spec.options | {"weights": data})
        return super().from_spec(spec)

    @classmethod
    def to_fit(cls, spec: Spec, classes: Sequence[str]) -> Self:
        """Build the teacher for ``ccl teachers fit``, from the weights in ``spec`` or random ones."""
        if spec.weights or spec.options.get("weights", "random") != "random":
            return super().to_fit(spec, classes)
        teacher = cls.build(spec, classes, cls.read(spec))
        teacher.random_weights = True
        return teacher

    @classmethod
    @abstractmethod
    def make_preprocess(cls, spec: Spec, options: Mapping[str, Any]) -> Preprocess:
        """Build the preprocessing."""

    def forward(self, x: Tensor) -> Tensor:
        """Embed ``[B, *preprocess.shape]`` as ``[B, dim]`` float32, non-negative and of length about 1."""
        return self.forward_stages(x)[0]

    def forward_stages(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the embedding ``[B, dim]`` and the output of each block, ``[B, C, height, width]``."""
        x = self.front_end(x)
        stages = []
        for block in self.blocks:
            x = block(x)
            stages.append(x)
        return x.flatten(2).float().mean(dim=2) / self.dim**0.5, tuple(stages)

    @abstractmethod
    def front_end(self, x: Tensor) -> Tensor:
        """Map inputs ``[B, *preprocess.shape]`` to ``[B, channels, height, width]``, centred at zero."""

    def class_scores(self, x: Tensor) -> Tensor:
        """Logits of ``classes``, ``[B, len(classes)]``."""
        scores: Tensor = self.classifier(self(x) * self.dim**0.5).float()
        return scores


class SmallImage(_Small):
    """A small image network on one frame of the clip; 0.08 M parameters.

    Options: ``dim`` (64), ``size`` (32 pixels), ``weights`` (``random``, or the name of the data set that
    `ccl teachers fit` used).
    """

    modality = "image"
    labels = "objects"
    channels = 3
    widths = (24, 48, 64)
    defaults: ClassVar[Mapping[str, Any]] = {"dim": 64, "size": 32}

    @classmethod
    def make_preprocess(cls, spec: Spec, options: Mapping[str, Any]) -> Preprocess:
        """One frame, in the teacher's size."""
        size, half = options["size"], (0.5, 0.5, 0.5)
        if size < 16:
            raise PluginError(f"{spec.label} needs a size of at least 16 pixels, not {size}.")
        return Picture((size, size), 1.0, "bilinear", False, half, half)

    def front_end(self, x: Tensor) -> Tensor:
        """Map uint8 images ``[B, 3, size, size]`` to [-1, 1]."""
        return x.float() / 127.5 - 1


class SmallAudio(_Small):
    """A small audio network on the log-mel spectrogram of 16 kHz audio; 0.06 M parameters.

    Options: ``dim`` (64), ``seconds`` (1.0) of audio around the clip's centre, ``weights`` (``random``, or
    the name of the data set that `ccl teachers fit` used).
    """

    modality = "audio"
    labels = "sounds"
    channels = 1
    widths = (16, 32, 64)
    defaults: ClassVar[Mapping[str, Any]] = {"dim": 64, "seconds": 1.0}

    def __init__(self, dim: int, classes: Sequence[str], preprocess: Preprocess) -> None:
        super().__init__(dim, classes, preprocess)
        self.norm = nn.BatchNorm2d(1)
        self.mel = MelSpectrogram(RATE, _FFT, _HOP, _MELS, _LOW, _HIGH)

    @classmethod
    def make_preprocess(cls, spec: Spec, options: Mapping[str, Any]) -> Preprocess:
        """Sound around the centre of the clip."""
        check_seconds(spec, options["seconds"], _SHORTEST)
        return Waveform(RATE, options["seconds"])

    def front_end(self, x: Tensor) -> Tensor:
        """Map ``[B, samples]`` to a normalised log-mel spectrogram ``[B, 1, frames, 32]``, float32."""
        mel = self.mel(x).clamp(min=1e-8).log()
        with torch.autocast(x.device.type, enabled=False):
            normed: Tensor = self.norm(mel[:, None])
            return normed


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
