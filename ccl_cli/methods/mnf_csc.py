"""Modality noise filter and contrastive semantic calibration (Xia et al., arXiv 2304.07775, 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.errors import RecipeError
from ccl_cli.methods import (
    Batch,
    Embedding,
    Method,
    MethodOptions,
    Setting,
    StudentOutput,
    TeacherBatch,
    TeacherInfo,
)
from ccl_cli.methods.components.batch_norm import MaskedBatchNorm
from ccl_cli.methods.components.losses import EXCLUDED, cross_entropy, unit_rows
from ccl_cli.utils.distributed import gather_mask, gather_rows


class MNFCSCOptions(MethodOptions):
    """Options of ``mnf_csc``; the defaults are those of the authors' code."""

    weight: float = Field(1.0, ge=0, description="Weight of all terms of a teacher.")
    threshold: float = Field(
        0.07, gt=0, description="Minimum temperature of a pair (published for ActivityNet: 0.2)."
    )
    adaptive: bool = Field(
        True,
        description="Add the cosine of video and filtered teacher to a pair's temperature; false: the "
        "temperature is the threshold.",
    )
    margin: float = Field(0.2, ge=0, description="Margin of the filter's triplet loss.")
    norm_weight: float = Field(0.001, ge=0, description="Weight of the filter's sparsity term.")
    heads: int = Field(2, ge=1, description="Attention heads; must divide the student's width.")
    lr_scale: float = Field(0.2, gt=0, description="Factor on the learning rate of the filter.")


class MNFCSC(Method):
    """A gate filters each teacher's embedding, and the filtered embedding attends to the student's tokens.

    The contrastive loss ``csc`` compares the student's feature with the attended tokens and trains the
    student and the filter. ``filter_ce``, ``triplet`` and ``norm`` train only the filter.
    """

    Options = MNFCSCOptions
    paper = "Xia et al., 2023"

    def __init__(self, options: MNFCSCOptions, setting: Setting) -> None:
        if setting.student_dim % options.heads:
            raise RecipeError(
                f"method.mnf_csc.heads: {options.heads} does not divide the student's width, "
                f"{setting.student_dim}.",
                "Use heads: 1.",
            )
        super().__init__(options, setting)
        self.lr_scale = options.lr_scale

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """Build the noise filter."""
        return NoiseFilter(setting.student_dim, teacher.dim, setting.num_classes, self.options.heads)

    def batches(self, dtype: torch.dtype, teachers: Mapping[str, Embedding]) -> Iterator[TeacherBatch]:
        """Yield each teacher; all rows are absent if only one is present, as batch norm needs two."""
        for teacher in super().batches(dtype, teachers):
            enough = gather_mask(teacher.present).sum() > 1
            yield teacher._replace(present=teacher.present & enough)

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return ``csc``, ``filter_ce``, ``triplet`` and ``norm``.

        Raises:
            RecipeError: the student's last stage is missing or has another width than its feature.
        """
        feature, tokens = student.feature, _tokens(student)
        noise_filter, present = teacher.head, teacher.present
        value = noise_filter.resize(teacher.value)
        # Two passes: only the contrastive loss trains the student, the filter's own losses do not.
        filtered, video = noise_filter(feature.detach(), tokens.detach(), value, present)
        attached, attached_video = noise_filter(feature, tokens, value, present)
        # The filtered teacher must be closer to the video than the raw one.
        raw, kept = _cosine(feature.detach(), value), _cosine(feature.detach(), filtered)
        norm = noise_filter.sparsity() * self.options.norm_weight
        return {
            "csc": self._contrastive_loss(feature, attached, attached_video, batch.labels, present),
            "filter_ce": cross_entropy(noise_filter.classifier(video), batch.labels),
            "triplet": (raw - kept + self.options.margin).relu(),
            "norm": norm.expand(len(feature)),
        }

    def _contrastive_loss(
        self, feature: Tensor, filtered: Tensor, video: Tensor, labels: Tensor, present: Tensor
    ) -> Tensor:
        """Mean of ``-log softmax(cos / temperature)`` over the positives of each row, [B]; 0 without any."""
        everywhere = gather_mask(present)
        temperature = self._temperatures(feature, gather_rows(filtered.detach()))
        scores = unit_rows(feature) @ unit_rows(gather_rows(video)).mT / temperature
        log_p = scores.masked_fill(~everywhere, EXCLUDED).log_softmax(dim=1)
        counted = (labels[:, None] == gather_rows(labels)) & everywhere
        return -torch.where(counted, log_p, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)

    def _temperatures(self, feature: Tensor, filtered: Tensor) -> Tensor:
        """Temperature of each pair of a video and a filtered teacher, [B, C]: their cosine plus a threshold.

        Negative cosines are set to zero. In the published code all cosines are positive; a negative one would
        repel the pair, and one of minus the threshold would divide by zero.
        """
        cosine: Tensor = (unit_rows(feature) @ unit_rows(filtered).mT).detach().clamp(min=0)
        threshold: float = self.options.threshold
        return cosine + threshold if self.options.adaptive else torch.full_like(cosine, threshold)


class NoiseFilter(nn.Module):
    """The modules for one teacher: gate, attention and classifier.

    A linear layer maps a teacher's embedding of another width than the student's feature and tokens.
    """

    def __init__(self, dim: int, teacher_dim: int, num_classes: int, heads: int) -> None:
        super().__init__()
        self.resize = nn.Identity() if teacher_dim == dim else nn.Linear(teacher_dim, dim)
        self.squeeze, self.squeeze_norm = nn.Linear(2 * dim, dim // 2), MaskedBatchNorm(dim // 2)
        self.excite = nn.Linear(dim // 2, dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.transform, self.transform_norm = nn.Linear(dim, dim), MaskedBatchNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(
        self, feature: Tensor, tokens: Tensor, teacher: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gate the teacher's embedding, and attend to the video's tokens with the result as query.

        Shapes:
            feature: [B, D].
            tokens: [B, N, D].
            teacher: [B, D], already mapped by ``self.resize``.
            present: [B] bool.
            returns: [B, D] gated embedding of the teacher; [B, D] pooled tokens.
        """
        squeezed = self.squeeze(torch.cat([teacher, feature], dim=1))
        gate = self.excite(self.squeeze_norm(squeezed, present).relu()).sigmoid()
        filtered = gate * teacher
        attended, _ = self.attention(filtered[:, None], tokens, tokens, need_weights=False)
        return filtered, self.transform_norm(self.transform(attended[:, 0]), present).relu()

    def sparsity(self) -> Tensor:
        """L1 norm of the weights of the gate's last layer, averaged over its outputs; a scalar."""
        return self.excite.weight.abs().sum(dim=1).mean()


def _tokens(student: StudentOutput) -> Tensor:
    """The student's last stage as tokens, [B, N, D]."""
    width = student.feature.shape[1]
    channels = student.stages[-1].shape[1] if student.stages else 0
    if channels != width:
        raise RecipeError(
            f"mnf_csc needs a last stage as wide as the student's feature ({width}), but it has {channels} "
            "channels.",
            "Use a student such as r2plus1d_18, or another method.",
        )
    return student.stages[-1].flatten(2).mT.to(student.feature.dtype)


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return (unit_rows(first) * unit_rows(second)).sum(dim=1)
