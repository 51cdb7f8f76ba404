"""Video transformers as students: MViT of pytorchvideo and torchvision, and Video Swin of torchvision.

Fan et al., "Multiscale Vision Transformers", ICCV 2021; Li et al., "MViTv2", CVPR 2022; Liu et al., "Video
Swin Transformer", CVPR 2022. The position embeddings of MViT fix the clip size; Swin supports any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models import video

from ccl_cli.errors import RecipeError
from ccl_cli.students import Student
from ccl_cli.students.blocks import hub
from ccl_cli.students.weights import fill_student


class MViT(Student):
    """MViT student: pooling transformer blocks; the feature is the output of the class token.

    Args:
        blocks: The first maps a clip to tokens [B, 1 + N, C], starting with the class token; the others map
            tokens and their grid (T, H, W) to new ones.
        norm: Normalisation of the last tokens.
        grid: Grid of the first tokens.
        feature_dim, num_classes, dropout: See :class:`Student`.
    """

    usual_clip = (16, 224)

    def __init__(
        self,
        blocks: nn.ModuleList,
        norm: nn.Module,
        grid: Sequence[int],
        feature_dim: int,
        num_classes: int,
        dropout: float,
    ) -> None:
        super().__init__(blocks, feature_dim, num_classes, dropout, norm)
        self.grid = tuple(grid)

    def embed(self, video: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :meth:`Student.embed`; a stage consists of all blocks with the same grid."""
        first, *blocks = self.blocks
        tokens, grid = first(video), self.grid
        stages: dict[tuple[int, ...], Tensor] = {}
        for block in blocks:
            tokens, grid = block(tokens, grid)
            stages[tuple(grid)] = tokens[:, 1:].mT.unflatten(2, tuple(grid))
        return self.pool(tokens)[:, 0], tuple(stages.values())

    def check_clip(self, frames: int, size: int) -> None:
        """Accept one clip size only."""
        if (frames, size) != self.usual_clip:
            usual_frames, usual_size = self.usual_clip
            raise RecipeError(
                f"MViT requires clips of {usual_frames} frames of {usual_size} pixels, not {frames} of "
                f"{size}.",
                f"Add --set clip.frames={usual_frames} --set clip.size={usual_size}.",
            )


class Swin(Student):
    """Video Swin student; the feature is the mean of the normalised tokens."""

    usual_clip = (32, 224)

    def embed(self, video: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :meth:`Student.embed`."""
        first, *blocks = self.blocks
        tokens = first(video)  # [B, T, H, W, C]
        stages = []
        for block in blocks:
            tokens = block(tokens)
            stages.append(tokens.movedim(-1, 1))
        return self.pool(tokens).mean(dim=(1, 2, 3)), tuple(stages)


class _Tokens(nn.Module):
    """Patch and position embedding of torchvision."""

    def __init__(self, network: video.MViT) -> None:
        super().__init__()
        self.conv_proj, self.pos_encoding = network.conv_proj, network.pos_encoding

    def forward(self, clips: Tensor) -> Tensor:
        tokens: Tensor = self.pos_encoding(self.conv_proj(clips).flatten(2).mT)
        return tokens


def mvit_base_16x4(num_classes: int, *, weights: str | None = None, dropout: float = 0.5) -> Student:
    """MViT-B of pytorchvideo: 36.6 M parameters, 768 dimensions, 71 GMAC per clip of 16x224x224."""
    with torch.device("cpu"):  # pytorchvideo reads values of a tensor, so not on the meta device
        network = hub.mvit_base_16x4(head_num_classes=num_classes)
    positions = network.cls_positional_encoding
    tokens = nn.Sequential(
        network.patch_embed,
        positions,
        network.pos_drop or nn.Identity(),
        network.norm_patch_embed or nn.Identity(),
    )
    student = MViT(
        nn.ModuleList([tokens, *network.blocks]),
        network.norm_embed,
        positions.patch_embed_shape,
        network.head.proj.in_features,
        num_classes,
        dropout,
    )
    fill_student(student, network, weights, "head.proj")
    return student


def mvit_v2_s(num_classes: int, *, weights: str | None = None, dropout: float = 0.5) -> Student:
    """MViTv2-S of torchvision: 34.5 M parameters, 768 dimensions, 64 GMAC per clip of 16x224x224."""
    network = video.mvit_v2_s(num_classes=num_classes)
    positions = network.pos_encoding
    student = MViT(
        nn.ModuleList([_Tokens(network), *network.blocks]),
        network.norm,
        (positions.temporal_size, *positions.spatial_size),
        network.head[1].in_features,
        num_classes,
        dropout,
    )
    fill_student(student, network, weights, "head.1")
    return student


def swin3d_t(num_classes: int, *, weights: str | None = None, dropout: float = 0.0) -> Student:
    """Video Swin-T of torchvision: 28.2 M parameters, 768 dimensions, 88 GMAC per clip of 32x224x224."""
    network = video.swin3d_t(num_classes=num_classes)
    first, *layers = network.features
    # torchvision merges patches between two stages; here patch merging starts a stage.
    stages = [nn.Sequential(merging, stage) for merging, stage in zip(layers[::2], layers[1::2], strict=True)]
    stem = nn.Sequential(network.patch_embed, network.pos_drop)
    student = Swin(
        nn.ModuleList([stem, first, *stages]), network.num_features, num_classes, dropout, network.norm
    )
    fill_student(student, network, weights, "head")
    return student
