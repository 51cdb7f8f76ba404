"""Imports of pytorchvideo, in one place."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # fvcore, a dependency of pytorchvideo, calls torch.jit.script on import.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    from pytorchvideo.layers.convolutions import create_conv_2plus1d
    from pytorchvideo.models import hub
    from pytorchvideo.models.resnet import ResBlock, ResStage
    from pytorchvideo.models.stem import ResNetBasicStem

__all__ = ["ResBlock", "ResNetBasicStem", "ResStage", "create_conv_2plus1d", "hub"]
