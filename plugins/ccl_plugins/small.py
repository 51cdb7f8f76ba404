"""``audio:small`` and ``image:small``: networks that ``ccl teachers fit`` trains in seconds on a CPU.

They have no published weights. By default they load the weights that `ccl teachers fit` trained on the
synthetic data set.
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
_SHORTEST = 15 * _HOP / RATE  # seconds: 16 frames, which four blocks halve
_UNNAMED = ("?", "?")  # classes of a network with random weights


class _Small(Teacher, ABC):
    """Four blocks of convolution, batch norm, ReLU and max pooling, then global average pooling.

    The embedding is non-negative and scaled to a length of about 1. Composition heads do not normalise it,
    and a length of 10 makes training unstable at the learning rates of small students. A linear classifier
    follows.
    """

    labels: ClassVar[str]  # labels of the synthetic data set to train on
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
        """Build the network with random weights."""

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Build the teacher from ``<modality>:small[@weights][?dim=64&…&weights=random|NAME]``.

        NAME is the data set that `ccl teachers fit` used.
        """
        if cls._options(spec)["weights"] == "random":
            with torch.random.fork_rng(devices=[]):  # keep the student's initial weights independent
                torch.manual_seed(0)
                return cls._new(spec, _UNNAMED).freeze()
        full, classes = as_fitted(cls._with_default_weights(spec))
        path = locate(full)
        if classes is None:
            raise WeightsError(f"'{path}' was not written by `ccl teachers fit`.", cls._hint(spec))
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
        """Build the teacher for ``ccl teachers fit``, from the weights in ``spec`` or random ones."""
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
            raise PluginError(f"{spec.label}: use either weights={options['weights']} or a file after '@'.")
        return options

    @classmethod
    def _with_default_weights(cls, spec: Spec) -> Spec:
        """Add the default weights if ``spec`` has none."""
        if spec.weights or spec.options.get("weights"):
            return spec
        data = f"synthetic-{cls.labels}"
        path = default_path(spec.kind, spec.name, data)
        if not path.is_file():
            message = f"The weights of {spec.label} are not on this machine: {path.name}."
            raise WeightsError(message, cls._hint(spec))
        return replace(spec, options=spec.options | {"weights": data})

    @classmethod
    def _hint(cls, spec: Spec) -> str:
        data = f"'synthetic?labels={cls.labels}'"
        return f"Run `ccl teachers fit {spec.label} --data {data}`, or give a file after '@'."

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

    def class_probabilities(self, x: Tensor) -> Tensor:
        """Probabilities of ``classes``, ``[B, len(classes)]``; rows sum to 1."""
        return self.class_scores(x).softmax(dim=1)

    def own_weights(self) -> Mapping[str, Tensor]:
        """All weights, including those of the classifier."""
        return self.state_dict()


class SmallImage(_Small):
    """A small image network on one frame of the clip; 0.08 M parameters.

    Options: ``dim`` (64), ``size`` (32 pixels), ``weights`` (``random``, or the name of the data set that
    `ccl teachers fit` used).
    """

    modality = "image"
    labels = "objects"
    widths = (24, 48, 64)
    defaults: ClassVar[dict[str, Any]] = {"dim": 64, "size": 32, "weights": ""}

    @classmethod
    def build(cls, options: Mapping[str, Any], classes: Sequence[str]) -> Self:
        """Build the network with random weights."""
        size, half = options["size"], (0.5, 0.5, 0.5)
        if size < 16:
            raise PluginError(f"image:small needs a size of at least 16 pixels, not {size}.")
        picture = Picture((size, size), 1.0, "bilinear", False, half, half)
        return cls(3, options["dim"], classes, picture)

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
    widths = (16, 32, 64)
    defaults: ClassVar[dict[str, Any]] = {"dim": 64, "seconds": 1.0, "weights": ""}
    window: Tensor
    filters: Tensor

    def __init__(self, channels: int, dim: int, classes: Sequence[str], preprocess: Preprocess) -> None:
        super().__init__(channels, dim, classes, preprocess)
        self.norm = nn.BatchNorm2d(1)
        with torch.device("cpu"):  # also if the network is built on the meta device
            mel = audio.melscale_fbanks(_FFT // 2 + 1, _LOW, _HIGH, _MELS, RATE, "slaney", "slaney")
            self.register_buffer("window", torch.hann_window(_FFT), persistent=False)
            self.register_buffer("filters", mel, persistent=False)

    @classmethod
    def build(cls, options: Mapping[str, Any], classes: Sequence[str]) -> Self:
        """Build the network with random weights."""
        seconds = float(options["seconds"])
        if not seconds >= _SHORTEST:
            raise PluginError(f"audio:small needs at least {_SHORTEST} seconds, not {seconds}.")
        return cls(1, options["dim"], classes, Waveform(RATE, seconds))

    def front_end(self, x: Tensor) -> Tensor:
        """Map ``[B, samples]`` to a normalised log-mel spectrogram ``[B, 1, frames, 32]``, float32."""
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
