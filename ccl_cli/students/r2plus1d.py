"""R(2+1)D: residual networks whose 3-D convolutions are split into a spatial and a temporal part.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018. Built from
pytorchvideo's blocks in three layouts, which differ in the number of channels between the two parts of a
convolution:

* ``torchvision``: 45 in the stem, and both convolutions of a block use the same number. Compatible with
    torchvision's weights.
* ``official``: the paper's formula for every convolution including shortcuts, and PyTorch's default
    initialisation, as in the official CCL code.
* ``narrow``: the output channels of the convolution, and torchvision's initialisation. Multiples of 16 use a
    processor's vector registers fully, unlike 5, 18, 28, 57 and 115 channels.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from operator import add
from typing import Literal

from torch import Tensor, nn

from ccl_cli.errors import RecipeError
from ccl_cli.students import Student
from ccl_cli.students.blocks import ResBlock, ResNetBasicStem, ResStage, create_conv_2plus1d
from ccl_cli.students.weights import fill_student

Layout = Literal["torchvision", "official", "narrow"]
Triple = tuple[int, int, int]

# Renaming from torchvision's names to ours, applied in this order.
_RENAMES = (
    (r"^stem\.([013])\.", r"blocks.0.conv.\1."),
    (r"^stem\.4\.", "blocks.0.norm."),
    (r"^layer(\d)\.(\d+)\.", r"blocks.\1.res_blocks.\2."),
    (r"\.conv1\.0\.", ".branch2.conv_a."),
    (r"\.conv1\.1\.", ".branch2.norm_a."),
    (r"\.conv2\.0\.", ".branch2.conv_b."),
    (r"\.conv2\.1\.", ".branch2.norm_b."),
    (r"\.downsample\.0\.", ".branch1_conv."),
    (r"\.downsample\.1\.", ".branch1_norm."),
    (r"\.(conv|conv_a|conv_b)\.0\.", r".\1.conv_xy."),
    (r"\.(conv|conv_a|conv_b)\.1\.", r".\1.norm."),
    (r"\.(conv|conv_a|conv_b)\.3\.", r".\1.conv_t."),
    (r"^fc\.", "classifier."),
)


def r2plus1d(
    num_classes: int,
    *,
    depths: Sequence[int],
    width: int = 64,
    layout: Layout = "torchvision",
    stem_stride: Triple = (1, 2, 2),
    dropout: float = 0.0,
    weights: str | None = None,
) -> Student:
    """Build an R(2+1)D student; the feature dimension is the width of its last stage.

    Args:
        num_classes: Number of classes, K.
        depths: Residual blocks per stage; a first stage without blocks is omitted.
        width: Channels of the stem and of the first stage, doubled in each further stage.
        layout: See the module docstring. All layouts except ``official`` use torchvision's initialisation:
            convolutions normal with variance 2 / fan_out, batch norm 1 and 0, classifier normal with
            deviation 0.01.
        stem_stride: Stride of the stem over time, height and width.
        dropout: Dropout probability before the classifier.
        weights: Weights file with torchvision's names or ours.
    """
    if width < 1:
        raise RecipeError(f"The student's width must be at least 1, not {width}.")
    widths = [width * 2**stage for stage in range(len(depths))]
    stages = [
        _stage(dim_in, dim_out, depth, 1 if dim_in == dim_out else 2, layout)
        for dim_in, dim_out, depth in zip([width, *widths], widths, depths, strict=False)
        if depth
    ]
    stem_mid = {
        "torchvision": max(1, 45 * width // 64),
        "official": mid_channels(3, width, (3, 7, 7)),
        "narrow": width,
    }[layout]
    stem = ResNetBasicStem(
        conv=_conv(3, stem_mid, width, kernel=(3, 7, 7), stride=stem_stride),
        norm=nn.BatchNorm3d(width),
        activation=nn.ReLU(inplace=True),
    )
    student = Student(nn.ModuleList([stem, *stages]), widths[-1], num_classes, dropout)
    if layout != "official":
        student.apply(_initialise)
    fill_student(student, student, weights, convert=_renamed)
    return student


def r2plus1d_18(num_classes: int, *, weights: str | None = None, dropout: float = 0.0) -> Student:
    """R(2+1)D-18 as in torchvision: 31.3 M parameters, 512 dimensions, 81 GFLOP per clip of 16x112x112."""
    return r2plus1d(num_classes, depths=(2, 2, 2, 2), dropout=dropout, weights=weights)


def r2plus1d_10(num_classes: int, *, weights: str | None = None, dropout: float = 0.0) -> Student:
    """The "depth 18" of the official CCL code: one block per stage, 14.4 M parameters, 42.7 GFLOP."""
    return r2plus1d(num_classes, depths=(1, 1, 1, 1), layout="official", dropout=dropout, weights=weights)


def r2plus1d_tiny(
    num_classes: int, *, weights: str | None = None, width: int = 8, dropout: float = 0.0
) -> Student:
    """One block per stage and an eighth of the width, for CPUs and tests: ``8 * width`` (64) dimensions."""
    return r2plus1d(num_classes, depths=(1, 1, 1, 1), width=width, dropout=dropout, weights=weights)


def r2plus1d_6(
    num_classes: int, *, weights: str | None = None, width: int = 16, dropout: float = 0.0
) -> Student:
    """Stem with temporal stride 2 and two stages of one block, for CPUs: ``4 * width`` (64) dimensions."""
    return r2plus1d(
        num_classes,
        depths=(0, 1, 1),
        width=width,
        layout="narrow",
        stem_stride=(2, 2, 2),
        dropout=dropout,
        weights=weights,
    )


def mid_channels(dim_in: int, dim_out: int, kernel: Triple = (3, 3, 3)) -> int:
    """Channels between the two parts that keep the parameter count of the 3-D convolution (section 3.5)."""
    time, height, width = kernel
    return time * height * width * dim_in * dim_out // (height * width * dim_in + time * dim_out)


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors from torchvision's names to ours."""
    for pattern, name in _RENAMES:
        state = {re.sub(pattern, name, key): value for key, value in state.items()}
    return state


def _stage(dim_in: int, dim_out: int, depth: int, stride: int, layout: Layout) -> nn.Module:
    first = _block(dim_in, dim_out, stride, layout)
    rest = [_block(dim_out, dim_out, 1, layout) for _ in range(depth - 1)]
    return ResStage(nn.ModuleList([first, *rest]))  # type: ignore[no-any-return]


def _block(dim_in: int, dim_out: int, stride: int, layout: Layout) -> nn.Module:
    mid_a = dim_out if layout == "narrow" else mid_channels(dim_in, dim_out)
    mid_b = mid_channels(dim_out, dim_out) if layout == "official" else mid_a
    residual = OrderedDict(
        conv_a=_conv(dim_in, mid_a, dim_out, stride=(stride,) * 3),
        norm_a=nn.BatchNorm3d(dim_out),
        act_a=nn.ReLU(inplace=True),
        conv_b=_conv(dim_out, mid_b, dim_out),
        norm_b=nn.BatchNorm3d(dim_out),
    )
    block: nn.Module = ResBlock(
        branch1_conv=_shortcut(dim_in, dim_out, stride, layout) if stride > 1 else None,
        branch1_norm=nn.BatchNorm3d(dim_out) if stride > 1 else None,
        branch2=nn.Sequential(residual),
        activation=nn.ReLU(inplace=True),
        branch_fusion=add,
    )
    return block


def _shortcut(dim_in: int, dim_out: int, stride: int, layout: Layout) -> nn.Module:
    if layout == "official":
        mid = mid_channels(dim_in, dim_out, (1, 1, 1))
        return _conv(dim_in, mid, dim_out, kernel=(1, 1, 1), stride=(stride,) * 3)
    return nn.Conv3d(dim_in, dim_out, kernel_size=1, stride=stride, bias=False)


def _conv(
    dim_in: int, dim_mid: int, dim_out: int, kernel: Triple = (3, 3, 3), stride: Triple = (1, 1, 1)
) -> nn.Module:
    conv: nn.Module = create_conv_2plus1d(
        in_channels=dim_in,
        inner_channels=dim_mid,
        out_channels=dim_out,
        conv_xy_first=True,
        kernel_size=kernel,
        stride=stride,
        padding=tuple(size // 2 for size in kernel),
        activation=partial(nn.ReLU, inplace=True),
    )
    return conv


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
