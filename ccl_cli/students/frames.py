"""Any 2-D network of timm as a student: each frame by itself, and the mean over the clip's frames.

Wang et al., "Temporal Segment Networks", ECCV 2016. With ``?shift=true`` a part of the channels moves to the
frames before and after it in every residual block: Lin et al., "TSM: Temporal Shift Module for Efficient
Video Understanding", ICCV 2019.
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

_STAGES = 4  # the last ones of timm's intermediate features
_SHARE = 8  # one channel in so many moves forward in time, as many move back


class Frames(Student):
    """A network of single frames.

    Args:
        network: timm's, without classifier.
        num_classes, dropout: As of every student.
        shift: Whether its residual blocks see neighbouring frames.

    Raises:
        RecipeError: the network has no residual blocks whose first layer is ``conv1``.
    """

    usual_clip = (8, 224)

    def __init__(self, network: Any, num_classes: int, dropout: float, shift: bool) -> None:
        super().__init__(nn.ModuleList([network]), network.num_features, num_classes, dropout)
        self.shifts = [_Shift(block.conv1) for block in _residual_blocks(network)] if shift else []

    def embed(self, video: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As of every student."""
        network: Any = self.blocks[0]
        clips, _, frames = video.shape[:3]
        for shift in self.shifts:
            shift.frames = frames
        images = video.transpose(1, 2).flatten(0, 1)  # [B * T, 3, H, W]
        last, stages = network.forward_intermediates(images, indices=_STAGES)
        feature = network.forward_head(last, pre_logits=True).unflatten(0, (clips, frames)).mean(dim=1)
        return feature, tuple(stage.unflatten(0, (clips, frames)).transpose(1, 2) for stage in stages)

    def check_clip(self, frames: int, size: int) -> None:
        """Any number of frames; of the size that the network is made for, where it has only one."""
        patches: Any = getattr(self.blocks[0], "patch_embed", None)
        if getattr(patches, "strict_img_size", False) and tuple(patches.img_size) != (size, size):
            side = patches.img_size[0]
            raise RecipeError(
                f"The student takes frames of {side} pixels, not of {size}.",
                f"Add --set clip.size={side}, or the option img_size={size} to the student.",
            )


class _Shift:
    """Before a layer, moves an eighth of the channels one frame on and another eighth one frame back.

    A hook, not a layer around the layer, so that tensors keep timm's names. ``frames`` is the number of
    frames of a clip, set before each forward pass.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.frames = 1
        layer.register_forward_pre_hook(self)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        clips = torch.unflatten(inputs[0], 0, (-1, self.frames))  # [B, T, C, H, W]
        share = clips.shape[2] // _SHARE
        back, forth, still = torch.split(clips, [share, share, clips.shape[2] - 2 * share], dim=2)
        empty = torch.zeros_like(back[:, :1])
        back = torch.cat([back[:, 1:], empty], dim=1)
        forth = torch.cat([empty, forth[:, :-1]], dim=1)
        return torch.cat([back, forth, still], dim=2).flatten(0, 1)


def _residual_blocks(network: nn.Module) -> list[Any]:
    blocks: list[Any] = [each for each in network.modules() if isinstance(each, BasicBlock | Bottleneck)]
    if not blocks:
        raise RecipeError(
            "shift=true is for ResNets, whose residual blocks it goes into.", "Leave it out, or use a ResNet."
        )
    return blocks


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
        num_classes: K.
        model: timm's name of it, for example ``resnet50``.
        weights: A file as timm publishes it, of ImageNet, or a model that ccl wrote; None: random weights.
        dropout: Probability of dropping a feature before the classifier, in training.
        shift: Let residual blocks see neighbouring frames (TSM); for ResNets and their kin.
        img_size: Of transformers: the frames' height and width, if not what the network is made for.

    Raises:
        RecipeError: timm has no such network, or it does not work here.
        WeightsError: the file is absent, damaged, or of another network.
    """
    if not timm.is_model(model):
        raise RecipeError(f"timm has no model '{model}'.", "timm.list_models() in Python lists them.")
    options = {} if img_size is None else {"img_size": img_size}
    try:
        network = timm.create_model(model, num_classes=0, **options)
    except TypeError as error:
        raise RecipeError(f"timm's '{model}' takes no img_size.", "Leave it out.") from error
    if not hasattr(network, "forward_intermediates"):
        raise RecipeError(f"timm shows no stages of '{model}'.", "Use a network of another family.")
    student = Frames(network, num_classes, dropout, shift)

    def without_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of its 1,000 classes, which are not ours."""
        names = network.default_cfg["classifier"]
        heads = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
        return {name: value for name, value in state.items() if not name.startswith(heads)}

    fill_student(student, network, weights, convert=without_classifier)
    return student
