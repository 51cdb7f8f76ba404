"""``audio:small`` and ``image:small``: networks that ``ccl teachers fit`` trains in seconds on a CPU.

Nobody publishes weights for them; where none are named, they take what was fitted to their label space of
the synthetic data set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
import torchaudio.functional as audio
from torch import Tensor, nn

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers import Preprocess, Teacher
from ccl_cli.teachers.fitted import as_fitted, default_path
from ccl_cli.teachers.options import read_options
from ccl_cli.teachers.waveform import Waveform
from ccl_cli.teachers.weights import load_state, locate
from ccl_plugins.picture import Picture

RATE = 16_000  # Hz
_FFT, _HOP, _MELS, _LOW, _HIGH = 512, 250, 32, 50.0, 8_000.0
_UNNAMED = ("?", "?")  # classes of a network that nobody has fitted


class _Small(Teacher, ABC):
    """Four blocks of convolution, batch norm and ReLU; then the mean over what is left, scaled.

    So the embedding is not negative, and about a unit long: composition heads add and classify it as it is,
    and one of length 10 upsets them at the learning rates that small students want. One linear classifier
    follows.
    """

    labels: ClassVar[str]  # the label space of the synthetic data set that it is for
    widths: ClassVar[tuple[int, int, int]]
    defaults: ClassVar[dict[str, Any]]

    def __init__(self, channels: int, dim: int, classes: Sequence[str], preprocess: Preprocess) -> None:
        super().__init__()
        self.dim, self.classes, self.preprocess = dim, tuple(classes), preprocess
        widths = (channels, *self.widths, dim)
        self.blocks = nn.ModuleList(_block(*pair) for pair in pairwise(widths))
        self.classifier = nn.Linear(dim, len(self.classes))

    @classmethod
    @abstractmethod
    def build(cls, options: Mapping[str, Any], classes: Sequence[str]) -> Self:
        """With random weights."""

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """``<modality>:small[@weights][?dim=64&…&weights=random|NAME of the data it was fitted to]``."""
        if cls._options(spec)["weights"] == "random":
            with torch.random.fork_rng(devices=[]):  # a teacher does not change the student's initial weights
                torch.manual_seed(0)
                return cls._new(spec, _UNNAMED).freeze()
        full, classes = as_fitted(cls._named(spec))
        path = locate(full)
        if classes is None:
            raise WeightsError(f"`ccl teachers fit` did not write '{path}'.", cls._advice(spec))
        with torch.device("meta"):
            teacher = cls._new(full, classes)
        teacher.random_weights = False
        try:
            teacher.load_state_dict(load_state(path), assign=True)
        except RuntimeError as error:
            message = " ".join(str(error).split())[:200]
            raise WeightsError(f"'{path}' does not fit {spec}: {message}...") from error
        return teacher.freeze()

    @classmethod
    def to_fit(cls, spec: Spec, classes: Sequence[str]) -> Self:
        """From its weights, if any are named, else from random ones."""
        if not spec.weights and cls._options(spec)["weights"] in ("", "random"):
            return cls._new(spec, classes)
        teacher = cls.from_spec(spec)
        teacher.classes = tuple(classes)
        teacher.classifier = nn.Linear(teacher.dim, len(classes))
        return teacher

    @classmethod
    def _new(cls, spec: Spec, classes: Sequence[str]) -> Self:
        options = cls._options(spec)
        teacher = cls.build(options, classes)
        settings = "&".join(f"{name}={options[name]}" for name in cls.defaults if name != "weights")
        teacher.variant = f"{spec.label}?{settings}"
        teacher.random_weights = True
        return teacher

    @classmethod
    def _options(cls, spec: Spec) -> dict[str, Any]:
        options = read_options(spec, **cls.defaults)
        if options["dim"] < 1:
            raise PluginError(f"{spec.label}: dim must be above 0, not {options['dim']}.")
        if spec.weights and options["weights"]:
            raise PluginError(f"{spec.label}: write either weights={options['weights']} or '@' and a file.")
        return options

    @classmethod
    def _named(cls, spec: Spec) -> Spec:
        """With the weights that are taken where none are named."""
        if spec.weights or spec.options.get("weights"):
            return spec
        data = f"synthetic-{cls.labels}"
        path = default_path(spec.kind, spec.name, data)
        if not path.is_file():
            message = f"The weights of {spec.label} are not on this machine: {path.name}."
            raise WeightsError(message, cls._advice(spec))
        return replace(spec, options=spec.options | {"weights": data})

    @classmethod
    def _advice(cls, spec: Spec) -> str:
        data = f"'synthetic?labels={cls.labels}'"
        return f"Run `ccl teachers fit {spec.label} --data {data}`, or name a file after '@'."

    def forward(self, x: Tensor) -> Tensor:
        """Embed ``[B, *preprocess.shape]`` as ``[B, dim]`` float32, not negative, about a unit long."""
        return self.forward_stages(x)[0]

    def forward_stages(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The embedding and each block's output, ``[B, C, height, width]``."""
        x = self.front_end(x)
        stages = []
        for block in self.blocks:
            x = block(x)
            stages.append(x)
        return x.flatten(2).float().mean(dim=2) / self.dim**0.5, tuple(stages)

    @abstractmethod
    def front_end(self, x: Tensor) -> Tensor:
        """Input to what the first block takes: ``[B, channels, height, width]`` around zero."""

    def class_scores(self, x: Tensor) -> Tensor:
        """Scores of the classes, ``[B, len(classes)]``."""
        scores: Tensor = self.classifier(self(x) * self.dim**0.5).float()
        return scores

    def class_probabilities(self, x: Tensor) -> Tensor:
        """Probability of each of ``classes``; rows sum to 1."""
        return self.class_scores(x).softmax(dim=1)

    def own_weights(self) -> Mapping[str, Tensor]:
        """All of them."""
        return self.state_dict()


class SmallImage(_Small):
    """A small image network: one frame of the window, resized to ``size``; 0.08 M parameters.

    Options: ``dim`` (64), ``size`` (32 pixels), ``weights`` (the name of the data set it was fitted to, or
    ``random``).
    """

    modality = "image"
    labels = "objects"
    widths = (24, 48, 64)
    defaults: ClassVar[dict[str, Any]] = {"dim": 64, "size": 32, "weights": ""}

    @classmethod
    def build(cls, options: Mapping[str, Any], classes: Sequence[str]) -> Self:
        """With random weights."""
        size, half = options["size"], (0.5, 0.5, 0.5)
        if size < 16:
            raise PluginError(f"image:small needs pictures of at least 16 pixels, not {size}.")
        picture = Picture((size, size), 1.0, "bilinear", False, half, half)
        return cls(3, options["dim"], classes, picture)

    def front_end(self, x: Tensor) -> Tensor:
        """``[B, 3, size, size]`` uint8 to [-1, 1]."""
        return x.float() / 127.5 - 1


class SmallAudio(_Small):
    """A small audio network on a log-mel spectrogram of 16 kHz sound; 0.06 M parameters.

    Options: ``dim`` (64), ``seconds`` (1.0) of sound around the window's centre, ``weights`` (the name of the
    data set it was fitted to, or ``random``).
    """

    modality = "audio"
    labels = "sounds"
    widths = (16, 32, 64)
    defaults: ClassVar[dict[str, Any]] = {"dim": 64, "seconds": 1.0, "weights": ""}
    window: Tensor
    filters: Tensor

    def __init__(self, channels: int, dim: int, classes: Sequence[str], preprocess: Preprocess) -> None:
        super().__init__(channels, dim, classes, preprocess)
        self.norm = nn.BatchNorm2d(1)
        with torch.device("cpu"):  # real numbers even where the network is built without storage
            mel = audio.melscale_fbanks(_FFT // 2 + 1, _LOW, _HIGH, _MELS, RATE, "slaney", "slaney")
            self.register_buffer("window", torch.hann_window(_FFT), persistent=False)
            self.register_buffer("filters", mel, persistent=False)

    @classmethod
    def build(cls, options: Mapping[str, Any], classes: Sequence[str]) -> Self:
        """With random weights."""
        seconds = float(options["seconds"])
        if not seconds >= 0.2:
            raise PluginError(f"audio:small needs at least 0.2 seconds, not {seconds}.")
        return cls(1, options["dim"], classes, Waveform(RATE, seconds))

    def front_end(self, x: Tensor) -> Tensor:
        """``[B, samples]`` to the normalised log-mel spectrogram ``[B, 1, frames, 32]``, always float32."""
        with torch.autocast(x.device.type, enabled=False):
            power = audio.spectrogram(x.float(), 0, self.window, _FFT, _HOP, _FFT, 2.0, False)
            mel = (power.transpose(1, 2) @ self.filters).clamp(min=1e-8).log()
            normed: Tensor = self.norm(mel[:, None])
            return normed


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
