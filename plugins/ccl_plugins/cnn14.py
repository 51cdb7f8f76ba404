"""``audio:cnn14``: PANNs CNN14, trained on AudioSet (Kong et al. 2020, https://arxiv.org/abs/1912.10211).

The paper's audio teacher is the variant with a 512-d embedding. The published weights
(https://zenodo.org/records/3987831, CC BY 4.0) are loaded without renaming tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers.classifier import ClassifierTeacher, audioset_classes
from ccl_cli.teachers.waveform import Waveform, check_seconds
from ccl_cli.teachers.weights import WeightFile
from ccl_plugins.mel import MelSpectrogram

RATE = 32_000  # Hz
_FFT, _HOP, _MELS, _LOW, _HIGH = 1024, 320, 64, 50.0, 14_000.0
_SHORTEST = 31 * _HOP / RATE  # seconds; leaves one frame after five poolings by two
_FRONT_END = ("spectrogram_extractor.", "logmel_extractor.", "spec_augmenter.")
_WIDTHS = (1, 64, 128, 256, 512, 1024, 2048)
# The feature maps of the first blocks fit in a CPU's cache only for a few tracks at a time.
_LARGE, _TRACKS = 4, 4

_RECORD = "https://zenodo.org/records/3987831/files/"
_PUBLISHED = {
    512: WeightFile(
        "Cnn14_emb512_mAP=0.420.pth",
        f"{_RECORD}Cnn14_emb512_mAP%3D0.420.pth?download=1",
        checksum="zenodo:3987831",
        licence="CC BY 4.0",
        note="PANNs CNN14 with a 512-d embedding, AudioSet mAP 0.420; about 300 MB.",
    ),
    2048: WeightFile(
        "Cnn14_mAP=0.431.pth",
        f"{_RECORD}Cnn14_mAP%3D0.431.pth?download=1",
        checksum="md5:541141fa2ee191a88f24a3219fff024e",
        size=327_428_481,
        licence="CC BY 4.0",
        note="PANNs CNN14, AudioSet mAP 0.431.",
    ),
}


class Cnn14(ClassifierTeacher):
    """Six blocks of two convolutions on a log-mel spectrogram, then mean plus maximum over time.

    Options: ``dim`` (512 or 2048), ``seconds`` (10) of audio per embedding, ``weights`` (``random``, or the
    name of the data set that `ccl teachers fit` used).
    """

    modality = "audio"
    defaults: ClassVar[Mapping[str, Any]] = {"dim": 512, "seconds": 10.0}
    classifier_name = "fc_audioset"

    def __init__(self, dim: int, seconds: float, classes: Sequence[str]) -> None:
        super().__init__()
        self.dim, self.classes = dim, tuple(classes)
        self.variant = _PUBLISHED[dim].filename.removesuffix(".pth")
        self.preprocess = Waveform(RATE, seconds)
        self.mel = MelSpectrogram(RATE, _FFT, _HOP, _MELS, _LOW, _HIGH)
        self.bn0 = nn.BatchNorm2d(_MELS)
        for number, (inputs, outputs) in enumerate(pairwise(_WIDTHS), start=1):
            self.add_module(f"conv_block{number}", _Block(inputs, outputs))
        self.fc1 = nn.Linear(_WIDTHS[-1], dim)
        self.fc_audioset = nn.Linear(dim, len(self.classes))

    @classmethod
    def build(cls, spec: Spec, classes: Sequence[str] | None, options: Mapping[str, Any]) -> Self:
        """See :meth:`ClassifierTeacher.build`."""
        check_seconds(spec, options["seconds"], _SHORTEST)
        teacher = cls(options["dim"], options["seconds"], classes or audioset_classes())
        if classes and spec.weights:
            teacher.variant = f"Cnn14_emb{teacher.dim}@{Path(spec.weights).name}"
        return teacher

    @classmethod
    def read(cls, spec: Spec) -> dict[str, Any]:
        """See :meth:`ClassifierTeacher.read`."""
        options = super().read(spec)
        if options["dim"] not in _PUBLISHED:
            raise PluginError(f"{spec.label}: dim must be 512 or 2048, not {options['dim']}.")
        return options

    @classmethod
    def published(cls, spec: Spec, options: Mapping[str, Any]) -> Sequence[WeightFile]:
        """The published file for the dimension."""
        return [_PUBLISHED[options["dim"]]]

    def from_published(self, state: Mapping[str, Tensor], path: Path) -> Mapping[str, Tensor]:
        """Drop the published front end.

        Raises:
            WeightsError: the file is for another spectrogram, which its shapes may not show.
        """
        stored = state.get("logmel_extractor.melW", self.mel.filters)
        if stored.shape != self.mel.filters.shape or not torch.allclose(stored, self.mel.filters, atol=1e-5):
            raise WeightsError(
                f"'{path}' was trained on another spectrogram.",
                "Use CNN14 weights for 32 kHz and 64 mel bands from 50 to 14,000 Hz.",
            )
        return {name: value for name, value in state.items() if not name.startswith(_FRONT_END)}

    def forward(self, x: Tensor) -> Tensor:
        """Embed audio.

        Shapes:
            x: [B, samples] float32 at 32 kHz.
            returns: [B, dim] float32, non-negative.
        """
        decibel = 10 * self.mel(x).clamp(min=1e-10).log10()
        x = decibel.unsqueeze(1)  # [B, 1, frames, mels]
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        # On a CPU, a few tracks at a time take a quarter to a third less time in the blocks with large
        # feature maps, but more in the others. In training, batch norm needs the whole batch.
        parts = torch.split(x, _TRACKS) if x.device.type == "cpu" and not self.training else [x]
        x = torch.cat([self._blocks(part, 1, _LARGE) for part in parts])
        x = self._blocks(x, _LARGE + 1, len(_WIDTHS) - 1)
        x = x.mean(dim=3)  # [B, 2048, frames / 32]
        x = x.amax(dim=2) + x.mean(dim=2)
        embedding: Tensor = F.relu(self.fc1(x)).float()
        return embedding

    def _blocks(self, x: Tensor, first: int, last: int) -> Tensor:
        for number in range(first, last + 1):
            x = self.get_submodule(f"conv_block{number}")(x)
            if number < len(_WIDTHS) - 1:
                x = F.avg_pool2d(x, 2)
        return x

    def class_scores(self, x: Tensor) -> Tensor:
        """Logits of ``classes``, ``[B, len(classes)]``."""
        return self.fc_audioset(self(x)).float()  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)
