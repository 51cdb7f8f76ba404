"""Modality noise filter and contrastive semantic calibration (Xia et al., arXiv 2304.07775, 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Method, MethodOptions, Setting, TeacherBatch, TeacherInfo
from ccl_cli.methods.components.batch_norm import MaskedBatchNorm
from ccl_cli.methods.components.losses import cross_entropy, unit_rows
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.utils.distributed import gather_mask, gather_rows

_EXCLUDED = -1e30  # its exponential is zero, and it stays finite where a gradient multiplies it by zero


class Filtered(NamedTuple):
    """What a filter makes of a batch.

    Shapes:
        teacher: [B, D] the teacher's embedding, gated.
        video: [B, D] the student's tokens as that embedding attends to them.
    """

    teacher: Tensor
    video: Tensor


def temperatures(student: Tensor, teacher: Tensor, threshold: float) -> Tensor:
    """Temperature of each pair of a video and a filtered teacher: their cosine above a threshold.

    A negative cosine counts as zero. The published code has only positive ones; there a negative one would
    repel the pair, and one of minus the threshold would divide by zero.

    Shapes:
        student: [A, D].
        teacher: [C, D].
        returns: [A, C], without gradient.
    """
    return (unit_rows(student) @ unit_rows(teacher).mT).detach().clamp(min=0) + threshold


def calibrated_contrast(
    student: Tensor, video: Tensor, temperature: Tensor, positive: Tensor, present: Tensor
) -> Tensor:
    """Contrastive loss with a temperature for each pair, per anchor: [A].

    Mean of ``-log softmax(cos / temperature)`` over the positives; an anchor without any has zero.

    Shapes:
        student: [A, D] anchors.
        video: [C, D] candidates.
        temperature: [A, C].
        positive: [A, C] bool, of the same class.
        present: [C] bool, candidates that exist.
    """
    scores = unit_rows(student) @ unit_rows(video).mT / temperature
    log_p = scores.masked_fill(~present, _EXCLUDED).log_softmax(dim=1)
    counted = positive & present
    return -torch.where(counted, log_p, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def margin_loss(student: Tensor, teacher: Tensor, filtered: Tensor, margin: float) -> Tensor:
    """How far the filtered teacher is from being closer to the video than the raw one by a margin, [B]."""
    return (_cosine(student, teacher) - _cosine(student, filtered) + margin).relu()


class MNFCSCOptions(MethodOptions):
    """Options of ``mnf_csc``; the defaults are those of the authors' code."""

    weight: float = Field(1.0, ge=0, description="Weight of all of a teacher's terms.")
    threshold: float = Field(
        0.07, gt=0, description="Least temperature of a pair (0.2 was published for ActivityNet)."
    )
    adaptive: bool = Field(
        True, description="A pair's temperature grows with the cosine of video and filtered teacher."
    )
    margin: float = Field(0.2, ge=0, description="Of the filter's triplet loss.")
    norm_weight: float = Field(0.001, ge=0, description="Of the filter's sparsity.")
    heads: int = Field(2, ge=1, description="Heads of the attention; they divide the student's width.")
    lr_scale: float = Field(0.2, gt=0, description="Factor on the learning rate of the filter.")


class MNFCSC(Method):
    """A gate filters each teacher's embedding; the student is contrasted with its own tokens, as it attends.

    ``csc`` trains the student and the filter; ``filter_ce``, ``triplet`` and ``norm`` the filter alone.
    """

    Options = MNFCSCOptions
    paper = "Xia et al., 2023"

    def __init__(self, options: MNFCSCOptions, setting: Setting) -> None:
        if setting.student_dim % options.heads:
            raise RecipeError(
                f"method.mnf_csc.heads: {options.heads} do not divide the student's width, "
                f"{setting.student_dim}.",
                "Use heads: 1.",
            )
        super().__init__(options, setting)
        self.lr_scale = options.lr_scale

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """The filter."""
        return NoiseFilter(setting.student_dim, teacher.dim, setting.num_classes, self.options.heads)

    def batches(self, dtype: torch.dtype, teachers: Mapping[str, Embedding]) -> Iterator[TeacherBatch]:
        """Each teacher; one with a single row has none, because batch normalisation needs two."""
        for teacher in super().batches(dtype, teachers):
            enough = gather_mask(teacher.present).sum() > 1
            yield teacher._replace(present=teacher.present & enough)

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """``csc``, ``filter_ce``, ``triplet`` and ``norm``."""
        feature, tokens = student.feature, _tokens(student)
        noise_filter, present = teacher.head, teacher.present
        value = noise_filter.resize(teacher.value)
        # The filter runs twice: its own losses must not reach the student, and the contrastive loss must.
        filtered = noise_filter(feature.detach(), tokens.detach(), value, present)
        live = noise_filter(feature, tokens, value, present)
        norm = noise_filter.sparsity() * self.options.norm_weight
        return {
            "csc": self._contrast(feature, live, batch.labels, present),
            "filter_ce": cross_entropy(noise_filter.classifier(filtered.video), batch.labels),
            "triplet": margin_loss(feature.detach(), value, filtered.teacher, self.options.margin),
            "norm": norm.expand(len(feature)),
        }

    def _contrast(self, feature: Tensor, live: Filtered, labels: Tensor, present: Tensor) -> Tensor:
        """This process's videos against the tokens of all, [B]."""
        candidates, everywhere = gather_rows(live.video), gather_mask(present)
        filtered = gather_rows(live.teacher.detach())
        temperature = temperatures(feature, filtered, self.options.threshold)
        if not self.options.adaptive:
            temperature = torch.full_like(temperature, self.options.threshold)
        positive = labels[:, None] == gather_rows(labels)
        return calibrated_contrast(feature, candidates, temperature, positive, everywhere)


class NoiseFilter(nn.Module):
    """Everything that belongs to one teacher: gate, attention and classifier.

    Args:
        dim: Width of the student's feature and tokens, D.
        teacher_dim: D_m; another width is mapped to D first.
        num_classes: K.
        heads: Of the attention.
    """

    def __init__(self, dim: int, teacher_dim: int, num_classes: int, heads: int) -> None:
        super().__init__()
        self.resize = nn.Identity() if teacher_dim == dim else nn.Linear(teacher_dim, dim)
        self.squeeze, self.squeeze_norm = nn.Linear(2 * dim, dim // 2), MaskedBatchNorm(dim // 2)
        self.excite = nn.Linear(dim // 2, dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.transform, self.transform_norm = nn.Linear(dim, dim), MaskedBatchNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, feature: Tensor, tokens: Tensor, teacher: Tensor, present: Tensor) -> Filtered:
        """Filter the teacher by the video, and attend to the video by what is left.

        Shapes:
            feature: [B, D].
            tokens: [B, N, D].
            teacher: [B, D].
            present: [B] bool.
        """
        squeezed = self.squeeze(torch.cat([teacher, feature], dim=1))
        gate = self.excite(self.squeeze_norm(squeezed, present).relu()).sigmoid()
        filtered = gate * teacher
        attended, _ = self.attention(filtered[:, None], tokens, tokens, need_weights=False)
        video = self.transform_norm(self.transform(attended[:, 0]), present).relu()
        return Filtered(filtered, video)

    def sparsity(self) -> Tensor:
        """Mean, over its outputs, of the absolute weights of the gate's last layer; a scalar."""
        return self.excite.weight.abs().sum(dim=1).mean()


def _tokens(student: StudentOutput) -> Tensor:
    """The student's last stage as tokens, [B, N, D].

    Raises:
        RecipeError: it has no stage, or one of another width than its feature.
    """
    width = student.feature.shape[1]
    if not student.stages or student.stages[-1].shape[1] != width:
        shown = f"has {student.stages[-1].shape[1]} channels" if student.stages else "is not shown"
        raise RecipeError(
            f"mnf_csc attends to the student's last stage, which must be as wide as its feature, {width}, "
            f"but {shown}.",
            "Use a student such as r2plus1d_18, or another method.",
        )
    return student.stages[-1].flatten(2).mT.to(student.feature.dtype)


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return (unit_rows(first) * unit_rows(second)).sum(dim=1)
