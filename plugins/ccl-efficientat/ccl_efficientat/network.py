"""EfficientAT's network: torchvision's MobileNetV3 with one input channel and sigmoid gates."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig, MobileNetV3
from torchvision.ops import SqueezeExcitation

# MobileNetV3-Large (Howard et al. 2019, https://arxiv.org/abs/1905.02244, table 1):
# inputs, kernel, expanded, outputs, gated, activation, stride.
_BLOCKS = (
    (16, 3, 16, 16, False, "RE", 1),
    (16, 3, 64, 24, False, "RE", 2),
    (24, 3, 72, 24, False, "RE", 1),
    (24, 5, 72, 40, True, "RE", 2),
    (40, 5, 120, 40, True, "RE", 1),
    (40, 5, 120, 40, True, "RE", 1),
    (40, 3, 240, 80, False, "HS", 2),
    (80, 3, 200, 80, False, "HS", 1),
    (80, 3, 184, 80, False, "HS", 1),
    (80, 3, 184, 80, False, "HS", 1),
    (80, 3, 480, 112, True, "HS", 1),
    (112, 3, 672, 112, True, "HS", 1),
    (112, 5, 672, 160, True, "HS", 2),
    (160, 5, 960, 160, True, "HS", 1),
    (160, 5, 960, 160, True, "HS", 1),
)
_HIDDEN = 1280
_GATE = ".conc_se_layers.0."
_HEAD = {"classifier.2.": "classifier.0.", "classifier.5.": "classifier.3."}


def mobilenet(width: float, classes: int) -> MobileNetV3:
    """Build MobileNetV3-Large with a width multiplier, for spectrograms ``[B, 1, mels, frames]``."""
    blocks = [InvertedResidualConfig(*block, dilation=1, width_mult=width) for block in _BLOCKS]
    # EfficientAT's gates end in a sigmoid, torchvision's in a hard sigmoid.
    block = partial(InvertedResidual, se_layer=SqueezeExcitation)
    hidden = InvertedResidualConfig.adjust_channels(_HIDDEN, width)
    network = MobileNetV3(blocks, hidden, classes, block)
    first = network.features[0]
    assert isinstance(first, nn.Sequential)
    first[0] = nn.Conv2d(1, blocks[0].input_channels, 3, stride=2, padding=1, bias=False)
    return network


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert EfficientAT's tensors to torchvision's names and shapes; those of torchvision are unchanged."""
    converted = {}
    for name, value in state.items():
        linear = _GATE in name and value.ndim == 2  # torchvision's gates are 1x1 convolutions
        for theirs, ours in _HEAD.items():
            if name.startswith(theirs):
                name = name.replace(theirs, ours)
        converted[name.replace(_GATE, ".")] = value[:, :, None, None] if linear else value
    return converted
