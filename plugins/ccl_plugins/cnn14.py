"""``audio:cnn14``: PANNs CNN14, trained on AudioSet (Kong et al. 2020, https://arxiv.org/abs/1912.10211).

The paper's audio teacher is the variant with a 512-d embedding. The published weights
(https://zenodo.org/records/3987831, CC BY 4.0) are loaded without renaming tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
import torchaudio.functional as audio
from torch import Tensor, nn
from torch.nn import functional as F

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.fitted import as_fitted
from ccl_cli.teachers.options import read_options
from ccl_cli.teachers.waveform import Waveform
from ccl_cli.teachers.weights import WeightFile, load_state, locate

RATE = 32_000  # Hz
_FFT, _HOP, _MELS, _LOW, _HIGH = 1024, 320, 64, 50.0, 14_000.0
_SHORTEST = 31 * _HOP  # samples; leaves one frame after five poolings by two
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


class Cnn14(Teacher):
    """Six blocks of two convolutions on a log-mel spectrogram, then mean plus maximum over time.

    Options: ``dim`` (512 or 2048), ``seconds`` (10) of audio per embedding, ``weights`` (``random``, or the
    name of the data set that `ccl teachers fit` used).
    """

    modality = "audio"
    window: Tensor
    filters: Tensor

    def __init__(self, dim: int = 512, seconds: float = 10.0, classes: Sequence[str] | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.variant = _PUBLISHED[dim].filename.removesuffix(".pth")
        self.classes = audioset_classes() if classes is None else tuple(classes)
        self.preprocess = Waveform(RATE, seconds)
        with torch.device("cpu"):  # also if the network is built on the meta device
            # Not in the state dict, because the published files have other names for them.
            self.register_buffer("window", torch.hann_window(_FFT), persistent=False)
            self.register_buffer("filters", _mel_filters(), persistent=False)
        self.bn0 = nn.BatchNorm2d(_MELS)
        for number, (inputs, outputs) in enumerate(pairwise(_WIDTHS), start=1):
            self.add_module(f"conv_block{number}", _Block(inputs, outputs))
        self.fc1 = nn.Linear(_WIDTHS[-1], dim)
        self.fc_audioset = nn.Linear(dim, len(self.classes))

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Build the teacher from ``audio:cnn14[@weights][?dim=512|2048&seconds=10&weights=random|NAME]``."""
        spec, classes = as_fitted(spec)
        options = _options(spec)
        dim, seconds = options["dim"], float(options["seconds"])
        if options["weights"] == "random":
            return cls._random(dim, seconds)
        path = locate(spec, _PUBLISHED[dim])
        with torch.device("meta"):
            teacher = cls(dim, seconds, classes)
        if classes is not None:
            teacher.variant = f"Cnn14_emb{dim}@{path.name}"
        state = _state(path, teacher, spec)
        _check(teacher.state_dict(), state, path)
        teacher.load_state_dict(state, assign=True)
        return teacher.freeze()

    @classmethod
    def weight_files(cls, spec: Spec) -> Sequence[WeightFile]:
        """The published file for the dimension in ``spec``."""
        spec, _ = as_fitted(spec)
        options = _options(spec)
        return () if spec.weights or options["weights"] == "random" else (_PUBLISHED[options["dim"]],)

    @classmethod
    def to_fit(cls, spec: Spec, classes: Sequence[str]) -> Self:
        """Build the teacher with a new classifier for ``ccl teachers fit``."""
        teacher = cls.from_spec(spec)
        teacher.classes = tuple(classes)
        teacher.fc_audioset = nn.Linear(teacher.dim, len(classes))
        return teacher

    @classmethod
    def _random(cls, dim: int, seconds: float) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            teacher = cls(dim, seconds)
        teacher.random_weights = True
        return teacher.freeze()

    def forward(self, x: Tensor) -> Tensor:
        """Embed audio.

        Shapes:
            x: [B, samples] float32 at 32 kHz.
            returns: [B, dim] float32, non-negative.
        """
        x = self.log_mel(x).unsqueeze(1)  # [B, 1, frames, mels]
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

    def log_mel(self, x: Tensor) -> Tensor:
        """Log-mel spectrogram in decibels: ``[B, samples]`` to ``[B, frames, 64]``, always float32."""
        with torch.autocast(x.device.type, enabled=False):
            power = audio.spectrogram(
                x.float(), 0, self.window, _FFT, _HOP, _FFT, 2.0, False, center=True, pad_mode="reflect"
            )
            decibel: Tensor = 10 * (power.transpose(1, 2) @ self.filters).clamp(min=1e-10).log10()
            return decibel

    def class_scores(self, x: Tensor) -> Tensor:
        """Logits of ``classes``, ``[B, len(classes)]``."""
        return self.fc_audioset(self(x)).float()  # type: ignore[no-any-return]

    def class_probabilities(self, x: Tensor) -> Tensor:
        """Probabilities of ``classes``, ``[B, len(classes)]``; multi-label (sigmoid) for AudioSet."""
        scores = self.class_scores(x)
        return scores.sigmoid() if self.classes == audioset_classes() else scores.softmax(dim=1)

    def own_weights(self) -> Mapping[str, Tensor]:
        """All weights, with the published names."""
        return self.state_dict()


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


@functools.cache
def audioset_classes() -> tuple[str, ...]:
    """Names of the 527 AudioSet classes, in the order of the published classifiers."""
    lines = files("ccl_plugins").joinpath("audioset_classes.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def _mel_filters() -> Tensor:
    filters: Tensor = audio.melscale_fbanks(
        _FFT // 2 + 1, _LOW, _HIGH, _MELS, RATE, norm="slaney", mel_scale="slaney"
    )
    return filters


def _options(spec: Spec) -> dict[str, Any]:
    options = read_options(spec, dim=512, seconds=10.0, weights="")
    if options["dim"] not in _PUBLISHED:
        raise PluginError(f"{spec.label}: dim must be 512 or 2048, not {options['dim']}.")
    if not options["seconds"] * RATE >= _SHORTEST:
        raise PluginError(
            f"{spec.label} needs at least {_SHORTEST / RATE} seconds, not {options['seconds']}."
        )
    if options["weights"] not in ("", "random") or (options["weights"] and spec.weights):
        raise PluginError(f"{spec.label}: use either weights=random or a weights file after '@'.")
    return options


def _state(path: Path, teacher: Cnn14, spec: Spec) -> dict[str, Tensor]:
    """The network's tensors in a published file, in float32.

    Raises:
        WeightsError: the file is for another spectrogram or embedding dimension.
    """
    state = load_state(path)
    stored = state.get("logmel_extractor.melW")
    if stored is not None and not _same(stored, teacher.filters):
        raise WeightsError(
            f"'{path}' was trained on another spectrogram: its mel filters are {list(stored.shape)}.",
            "Use CNN14 weights for 32 kHz and 64 mel bands from 50 to 14,000 Hz.",
        )
    width = len(state["fc1.bias"]) if "fc1.bias" in state else None
    if width in _PUBLISHED and width != teacher.dim:
        raise WeightsError(
            f"'{path}' contains the {width}-d CNN14, but {spec.label} has dim={teacher.dim}.",
            f"Use the option dim={width}.",
        )
    network = {name: value for name, value in state.items() if not name.startswith(_FRONT_END)}
    return {name: value.float() if value.is_floating_point() else value for name, value in network.items()}


def _check(own: dict[str, Tensor], state: dict[str, Tensor], path: Path) -> None:
    # Old files do not have batch norm's step counters, which evaluation does not use.
    needed = {name: value.shape for name, value in own.items() if not name.endswith("num_batches_tracked")}
    shapes = {name: value.shape for name, value in state.items() if not name.endswith("num_batches_tracked")}
    wrong = {name for name, _ in needed.items() ^ shapes.items()}
    if wrong:
        raise WeightsError(
            f"'{path}' is not a CNN14: {len(wrong)} tensors are missing, unknown or of another shape, for "
            f"example {min(wrong)}."
        )


def _same(stored: Tensor, own: Tensor) -> bool:
    return stored.shape == own.shape and torch.allclose(stored.float(), own, atol=1e-5)
