"""2-D networks of timm as students: applied to each frame, and averaged over the frames of a clip.

Wang et al., "Temporal Segment Networks", ECCV 2016. ``?shift=true`` shifts some channels to the previous and
next frames in every residual block: Lin et al., "TSM: Temporal Shift Module for Efficient Video
Understanding", ICCV 2019.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from ccl_cli.errors import RecipeError
from ccl_cli.students import Student
from ccl_cli.students.weights import fill_student

_STAGES = 4  # number of timm's intermediate features to use, from the last
_FOLD = 8  # 1 / 8 of the channels is shifted forward in time, and 1 / 8 back


class Frames(Student):
    """A 2-D network of timm without classifier, applied to each frame."""

    usual_clip = (8, 224)

    def __init__(self, network: Any, num_classes: int, dropout: float, shift: bool) -> None:
        super().__init__(nn.ModuleList([network]), network.num_features, num_classes, dropout)
        residual = [each for each in network.modules() if isinstance(each, BasicBlock | Bottleneck)]
        if shift and not residual:
            raise RecipeError(
                "shift=true requires a ResNet, because it changes residual blocks.",
                "Omit it, or use a ResNet.",
            )
        self.shifts = [_Shift(block.conv1) for block in residual] if shift else []

    def embed(self, video: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :meth:`Student.embed`."""
        network: Any = self.blocks[0]
        clips, _, frames = video.shape[:3]
        for shift in self.shifts:
            shift.frames = frames
        images = video.transpose(1, 2).flatten(0, 1)  # [B * T, 3, H, W]
        last, stages = network.forward_intermediates(images, indices=_STAGES)
        feature = network.forward_head(last, pre_logits=True).unflatten(0, (clips, frames)).mean(dim=1)
        return feature, tuple(stage.unflatten(0, (clips, frames)).transpose(1, 2) for stage in stages)

    def check_clip(self, frames: int, size: int) -> None:
        """Accept any number of frames; the size must match if the network has a fixed input size."""
        patches: Any = getattr(self.blocks[0], "patch_embed", None)
        if getattr(patches, "strict_img_size", False) and tuple(patches.img_size) != (size, size):
            side = patches.img_size[0]
            raise RecipeError(
                f"The student requires frames of {side} pixels, not {size}.",
                f"Add --set clip.size={side}, or the option img_size={size} of the student.",
            )


class _Shift:
    """Forward pre-hook that shifts 1/8 of a layer's input channels one frame forward, and 1/8 one frame back.

    A hook instead of a wrapper module keeps timm's parameter names. ``frames`` is the number of frames per
    clip, set before each forward pass.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.frames = 1
        layer.register_forward_pre_hook(self)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        clips = torch.unflatten(inputs[0], 0, (-1, self.frames))  # [B, T, C, H, W]
        count = clips.shape[2] // _FOLD
        back, forward, rest = torch.split(clips, [count, count, clips.shape[2] - 2 * count], dim=2)
        zeros = torch.zeros_like(back[:, :1])
        back = torch.cat([back[:, 1:], zeros], dim=1)
        forward = torch.cat([zeros, forward[:, :-1]], dim=1)
        return torch.cat([back, forward, rest], dim=2).flatten(0, 1)


def frames(
    num_classes: int,
    *,
    model: str,
    weights: str | None = None,
    dropout: float = 0.5,
    shift: bool = False,
    img_size: int | None = None,
) -> Student:
    """Build a network of timm as a student.

    Args:
        num_classes: Number of classes, K.
        model: Name of the model in timm, for example ``resnet50``.
        weights: ImageNet weights file of timm, or a model written by ccl.
        dropout: Dropout probability before the classifier.
        shift: Use temporal shift (TSM) in the residual blocks; for ResNets.
        img_size: Height and width of the frames, for transformers with another default size.
    """
    if not timm.is_model(model):
        raise RecipeError(f"timm has no model '{model}'.", "timm.list_models() in Python lists them.")
    options = {} if img_size is None else {"img_size": img_size}
    try:
        network = timm.create_model(model, num_classes=0, **options)
    except TypeError as error:
        raise RecipeError(f"timm's '{model}' does not support img_size.", "Omit it.") from error
    if not hasattr(network, "forward_intermediates"):
        raise RecipeError(
            f"timm provides no intermediate features of '{model}'.", "Use another model family."
        )
    student = Frames(network, num_classes, dropout, shift)

    def without_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Drop the classifier of the 1,000 ImageNet classes."""
        names = network.default_cfg["classifier"]
        heads = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
        return {name: value for name, value in state.items() if not name.startswith(heads)}

    fill_student(student, network, weights, convert=without_classifier)
    return student
