"""``audio:efficientat_mn04`` and wider variants: EfficientAT, trained on AudioSet.

Schmid et al. 2023, https://arxiv.org/abs/2211.04772. Code and weights (MIT licence):
https://github.com/fschmid56/EfficientAT.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.fitted import as_fitted
from ccl_cli.teachers.options import read_options
from ccl_cli.teachers.waveform import Waveform
from ccl_cli.teachers.weights import WeightFile, load_state, locate
from ccl_efficientat.network import from_published, mobilenet
from ccl_efficientat.sound import RATE, SHORTEST, LogMel

_RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"
_PREFIX = "efficientat_"


class _Variant(NamedTuple):
    """A published network.

    Attributes:
        width: Width multiplier of MobileNetV3-Large.
        precision: Mean average precision on AudioSet in thousandths, as in the file's name.
        sha256: Checksum of the file, if known.
        size: Size of the file in bytes, if known.
    """

    width: float
    precision: int
    sha256: str | None = None
    size: int | None = None

    def file(self, name: str) -> WeightFile:
        """The published weights file."""
        filename = f"{name}_as_mAP_{self.precision}.pt"
        return WeightFile(
            filename,
            _RELEASE + filename,
            checksum=f"sha256:{self.sha256}" if self.sha256 else None,
            size=self.size,
            licence="MIT",
            note=f"EfficientAT, AudioSet mAP 0.{self.precision}.",
        )


_VARIANTS = {
    "mn04": _Variant(0.4, 432, "22fcb407c1dd1f48c31d64b06c0756092b0444bf43ccb04a4c56cc0f017da846", 4_074_343),
    "mn05": _Variant(0.5, 443),
    "mn10": _Variant(1.0, 471),
    "mn20": _Variant(2.0, 478),
    "mn30": _Variant(3.0, 482),
    "mn40": _Variant(4.0, 484),
}


class EfficientAT(Teacher):
    """A MobileNetV3 on a log-mel spectrogram, then the mean over time and frequency.

    The number in the name is the width multiplier: mn04 has 0.98 M parameters and a 384-d embedding, mn10 has
    4.9 M and 960-d, mn40 has 68 M and 3840-d.

    Options: ``seconds`` (10) of audio per embedding, ``weights`` (``random``, or the name of the data set
    that `ccl teachers fit` used).
    """

    modality = "audio"

    def __init__(self, variant: str, seconds: float = 10.0, classes: Sequence[str] | None = None) -> None:
        super().__init__()
        self.variant = f"{variant}_as"
        self.classes = audioset_classes() if classes is None else tuple(classes)
        self.preprocess = Waveform(RATE, seconds)
        self.log_mel = LogMel()
        self.network = mobilenet(_VARIANTS[variant].width, len(self.classes))
        self.dim = self.network.classifier[0].in_features

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Build the teacher from ``audio:efficientat_mn04[@weights][?seconds=10&weights=random|NAME]``."""
        spec, classes = as_fitted(spec)
        variant, options = _variant(spec), _options(spec)
        if options["weights"] == "random":
            return cls._random(variant, options["seconds"])
        path = locate(spec, *cls.weight_files(spec))
        with torch.device("meta"):
            teacher = cls(variant, options["seconds"], classes)
        if spec.weights:
            teacher.variant = f"{variant}@{path.name}"
        state = from_published(load_state(path))
        if wrong := _different(teacher.network.state_dict(), state):
            raise WeightsError(
                f"'{path}' is not an EfficientAT {variant}: {len(wrong)} tensors are missing, unknown or of "
                f"another shape, for example {min(wrong)}."
            )
        teacher.network.load_state_dict(state, assign=True)
        return teacher.freeze()

    @classmethod
    def weight_files(cls, spec: Spec) -> Sequence[WeightFile]:
        """The published file of the variant in ``spec``."""
        spec, _ = as_fitted(spec)
        variant = _variant(spec)
        own = spec.weights or _options(spec)["weights"] == "random"
        return () if own else (_VARIANTS[variant].file(variant),)

    @classmethod
    def to_fit(cls, spec: Spec, classes: Sequence[str]) -> Self:
        """Build the teacher with a new classifier for ``ccl teachers fit``."""
        teacher = cls.from_spec(spec)
        teacher.classes = tuple(classes)
        last = teacher.network.classifier[-1]
        teacher.network.classifier[-1] = nn.Linear(last.in_features, len(classes))
        return teacher

    @classmethod
    def _random(cls, variant: str, seconds: float) -> Self:
        with torch.random.fork_rng(devices=[]):  # keep the student's initial weights independent of teachers
            torch.manual_seed(0)
            teacher = cls(variant, seconds)
        teacher.random_weights = True
        return teacher.freeze()

    def forward(self, x: Tensor) -> Tensor:
        """Embed audio.

        Shapes:
            x: [B, samples] float32 at 32 kHz.
            returns: [B, dim] float32.
        """
        spectrogram = self.log_mel(x)[:, None]  # [B, 1, mels, frames]
        embedding: Tensor = self.network.features(spectrogram).float().mean(dim=(2, 3))
        return embedding

    def class_scores(self, x: Tensor) -> Tensor:
        """Logits of ``classes``, ``[B, len(classes)]``."""
        scores: Tensor = self.network.classifier(self(x)).float()
        return scores

    def class_probabilities(self, x: Tensor) -> Tensor:
        """Probabilities of ``classes``, ``[B, len(classes)]``; multi-label (sigmoid) for AudioSet."""
        scores = self.class_scores(x)
        return scores.sigmoid() if self.classes == audioset_classes() else scores.softmax(dim=1)

    def own_weights(self) -> Mapping[str, Tensor]:
        """Weights of the network, with torchvision's names."""
        weights: Mapping[str, Tensor] = self.network.state_dict()
        return weights


@functools.cache
def audioset_classes() -> tuple[str, ...]:
    """Names of the 527 AudioSet classes, in the order of the published classifiers."""
    lines = files("ccl_efficientat").joinpath("audioset_classes.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def _variant(spec: Spec) -> str:
    name = spec.name.removeprefix(_PREFIX)
    if name not in _VARIANTS:
        raise PluginError(
            f"There is no teacher {spec.label}.", f"Use one of {', '.join(map(_PREFIX.__add__, _VARIANTS))}."
        )
    return name


def _options(spec: Spec) -> dict[str, Any]:
    options = read_options(spec, seconds=10.0, weights="")
    options["seconds"] = float(options["seconds"])
    if not options["seconds"] >= SHORTEST or not options["seconds"] * RATE < 2**31:
        raise PluginError(f"{spec.label} needs at least {SHORTEST} seconds, not {options['seconds']}.")
    if options["weights"] not in ("", "random") or (options["weights"] and spec.weights):
        raise PluginError(f"{spec.label}: use either weights=random or a weights file after '@'.")
    return options


def _different(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> set[str]:
    """Names of tensors that are missing on one side or have different shapes."""
    needed, actual = ({name: value.shape for name, value in each.items()} for each in (own, state))
    return {name for name, _ in needed.items() ^ actual.items()}
