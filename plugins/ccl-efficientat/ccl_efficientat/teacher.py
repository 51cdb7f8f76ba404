"""``audio:efficientat_mn04`` and wider variants: EfficientAT, trained on AudioSet.

Schmid et al. 2023, https://arxiv.org/abs/2211.04772. Code and weights (MIT licence):
https://github.com/fschmid56/EfficientAT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError
from ccl_cli.teachers.classifier import ClassifierTeacher, audioset_classes
from ccl_cli.teachers.waveform import Waveform, check_seconds
from ccl_cli.teachers.weights import WeightFile
from ccl_efficientat.network import from_published, mobilenet
from ccl_efficientat.sound import RATE, SHORTEST, LogMel

_RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"
_PREFIX = "efficientat_"


class _Variant(NamedTuple):
    """A published network: its width multiplier, AudioSet mAP in thousandths, and file."""

    width: float
    precision: int
    checksum: str | None = None
    size: int | None = None


_VARIANTS = {
    "mn04": _Variant(
        0.4, 432, "sha256:22fcb407c1dd1f48c31d64b06c0756092b0444bf43ccb04a4c56cc0f017da846", 4_074_343
    ),
    "mn05": _Variant(0.5, 443),
    "mn10": _Variant(1.0, 471),
    "mn20": _Variant(2.0, 478),
    "mn30": _Variant(3.0, 482),
    "mn40": _Variant(4.0, 484),
}


class EfficientAT(ClassifierTeacher):
    """A MobileNetV3 on a log-mel spectrogram, then the mean over time and frequency.

    The number in the name is the width multiplier: mn04 has 0.98 M parameters and a 384-d embedding, mn10 has
    4.9 M and 960-d, mn40 has 68 M and 3840-d.

    Options: ``seconds`` (10) of audio per embedding, ``weights`` (``random``, or the name of the data set
    that `ccl teachers fit` used).
    """

    modality = "audio"
    defaults: ClassVar[Mapping[str, Any]] = {"seconds": 10.0}
    classifier_name = "network.classifier.3"

    def __init__(self, variant: str, width: float, seconds: float, classes: Sequence[str]) -> None:
        super().__init__()
        self.variant, self.classes = variant, tuple(classes)
        self.preprocess = Waveform(RATE, seconds)
        self.log_mel = LogMel()
        self.network = mobilenet(width, len(self.classes))
        self.dim = self.network.classifier[0].in_features

    @classmethod
    def build(cls, spec: Spec, classes: Sequence[str] | None, options: Mapping[str, Any]) -> Self:
        """See :meth:`ClassifierTeacher.build`."""
        check_seconds(spec, options["seconds"], SHORTEST)
        name, published = _variant(spec)
        variant = f"{name}@{Path(spec.weights).name}" if spec.weights else f"{name}_as"
        return cls(variant, published.width, options["seconds"], classes or audioset_classes())

    @classmethod
    def published(cls, spec: Spec, options: Mapping[str, Any]) -> Sequence[WeightFile]:
        """The published file of the variant in ``spec``."""
        name, (_, precision, checksum, size) = _variant(spec)
        filename = f"{name}_as_mAP_{precision}.pt"
        note = f"EfficientAT, AudioSet mAP 0.{precision}."
        return [WeightFile(filename, _RELEASE + filename, checksum, size, licence="MIT", note=note)]

    @property
    def network_with_weights(self) -> nn.Module:
        """The network without the spectrogram."""
        network: nn.Module = self.network
        return network

    def from_published(self, state: Mapping[str, Tensor], path: Path) -> Mapping[str, Tensor]:
        """Convert EfficientAT's tensors to torchvision's names and shapes."""
        return from_published(state)

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


def _variant(spec: Spec) -> tuple[str, _Variant]:
    name = spec.name.removeprefix(_PREFIX)
    if name not in _VARIANTS:
        raise PluginError(
            f"There is no teacher {spec.label}.", f"Use one of {', '.join(map(_PREFIX.__add__, _VARIANTS))}."
        )
    return name, _VARIANTS[name]
