"""Compositional contrastive learning (Chen et al., CVPR 2021, Eq. 1-8), with the official code's variant."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from ccl_cli.errors import RecipeError
from ccl_cli.methods import Batch, Method, MethodOptions, Setting, StudentOutput, TeacherBatch, TeacherInfo
from ccl_cli.methods.components import losses
from ccl_cli.utils.distributed import gather_mask, gather_rows, rank

Weight = Annotated[float, Field(ge=0)]

TEMPERATURE = {"audio": 0.5, "image": 0.1, "other": 0.1}

# Differences of the official code from the paper. Its two contrastive losses have weight 1 each instead of
# lambda and 1 - lambda, hence nce_scale 2 with nce_lambda 0.5.
OFFICIAL: dict[str, Any] = {
    "symmetric": "sum",
    "nce_scale": 2.0,
    "gradient": "official",
    "head_teacher_nce": True,
}


class CCLOptions(MethodOptions):
    """Options of ``ccl``; the defaults are the paper's."""

    implied: ClassVar = {("preset", "official"): OFFICIAL}

    preset: Literal["paper", "official"] = Field(
        "paper",
        description="official: the losses of the published code (the recipe ucf51-official sets the rest).",
    )
    temperature: dict[str, Annotated[float, Field(gt=0)]] = Field(
        TEMPERATURE,
        description="Temperature by modality or by teacher (modality:name); the others keep their default.",
    )
    nce_lambda: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the contrastive loss with the teacher; the rest is with the composition "
        "(Eq. 5-6).",
    )
    nce_scale: Weight = Field(1.0, description="Weight of the contrastive loss.")
    jsd_weight: Weight = Field(1.0, description="Weight of the divergence between predictions (Eq. 7).")
    cls_weight: Weight = Field(
        1.0,
        description="Weight of the classification loss (Eq. 2, 8): the cross-entropy of the student and of "
        "the compositions.",
    )
    teacher_weight: Weight | None = Field(
        None,
        description="Weight of each teacher's contrastive loss and divergence; default 1 (official with "
        "several teachers: 0.5).",
    )
    symmetric: Literal["none", "mean", "sum"] = Field(
        "none",
        description="none: only the video is the anchor; mean, sum: of both directions.",
    )
    gradient: Literal["split", "joint", "official"] = Field(
        "split",
        description="joint: the compositions' cross-entropy also trains the student; split: it does not; "
        "official: gradients of the published code.",
    )
    contrast: Literal["multiclass", "infonce"] = Field(
        "multiclass", description="Contrastive loss: multiclass is Eq. 4, infonce is Eq. 3."
    )
    divergence: Literal["half_jeffreys", "js"] = Field(
        "half_jeffreys", description="half_jeffreys: Eq. 7; js: the Jensen-Shannon divergence."
    )
    composition: bool = Field(
        True, description="Ablation: false contrasts the student with the teachers only."
    )
    nce: bool = Field(True, description="Ablation: false removes the contrastive loss.")
    jsd: bool = Field(True, description="Ablation: false removes the divergence.")
    head_teacher_nce: bool = Field(
        False,
        description="Also contrast each composition with its teacher (official code); trains only the head "
        "and needs nce.",
    )
    normalize_inputs: bool = Field(
        True, description="Scale the inputs of the composition's residual to unit length."
    )

    @field_validator("temperature")
    @classmethod
    def _keep_other_temperatures(cls, values: dict[str, float]) -> dict[str, float]:
        return TEMPERATURE | values

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if not (self.composition or self.nce):
            raise ValueError("composition and nce cannot both be off: no term would be left")
        return self


class CCL(Method):
    """One composition head per teacher; contrastive loss of features, divergence of predictions."""

    Options = CCLOptions
    paper = "Chen et al., CVPR 2021"
    tuned = "teacher_weight"

    def __init__(self, options: CCLOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        self._check_temperatures()
        several = len(setting.teachers) > 1
        default_weight = 0.5 if options.preset == "official" and several else 1.0
        self.teacher_weight = default_weight if options.teacher_weight is None else options.teacher_weight
        self.ce_weight = options.cls_weight

    def head(self, setting: Setting, teacher: TeacherInfo) -> nn.Module:
        """Build the composition function and its classifier (Eq. 1)."""
        head = CompositionHead(
            teacher.dim, setting.student_dim, setting.num_classes, self.options.normalize_inputs
        )
        if not self.options.composition:  # only the projection to the student's width is used
            head.requires_grad_(False)
            head.project.requires_grad_(True)
        return head

    def weight(self, term: str) -> float:
        """Return the weight of a term of Eq. 8 or of the official code."""
        options = self.options
        nce, jsd = options.nce_scale, options.jsd_weight
        weights = {
            "ce": options.cls_weight,
            "nce": self.teacher_weight * nce,
            "jsd": self.teacher_weight * jsd,
            # The official code's extra terms for the heads do not use the teacher's weight.
            "nce_head": nce * (1 - options.nce_lambda),
            "jsd_head": jsd,
            "nce_teacher": 1.0,
        }
        return float(weights[term])

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return ``nce``, ``jsd`` and ``ce`` (Eq. 8 without the student's cross-entropy)."""
        options, feature, logits, head = self.options, student.feature, student.logits, teacher.head
        embedding = head.project(teacher.value)
        nce = _ContrastiveLoss(options, self._temperature(teacher.info), batch.labels, teacher.present)
        if not options.composition:
            return {"nce": nce(feature, embedding)}
        composed, scores = head(embedding, feature)
        # Gradients of this composition train the head, but not the student.
        detached, detached_scores = head(embedding, feature.detach())
        classified = scores if options.gradient == "joint" else detached_scores
        terms = {"ce": losses.cross_entropy(classified, batch.labels)}
        if options.nce:
            share = options.nce_lambda
            terms["nce"] = share * nce(feature, embedding) + (1 - share) * nce(feature, composed)
        if options.jsd:
            terms["jsd"] = self._divergence(logits, scores)
        # The first backward pass of the official code trains the heads on the same terms again, with a
        # detached student.
        official = options.gradient == "official"
        if official and options.nce:
            terms["nce_head"] = nce(feature.detach(), detached)
        if official and options.jsd:
            terms["jsd_head"] = self._divergence(logits.detach(), detached_scores)
        if options.nce and options.head_teacher_nce:
            terms["nce_teacher"] = nce(detached, embedding)
        return terms

    def _divergence(self, logits_p: Tensor, logits_q: Tensor) -> Tensor:
        half_jeffreys = self.options.divergence == "half_jeffreys"
        return (losses.half_jeffreys if half_jeffreys else losses.jensen_shannon)(logits_p, logits_q)

    def _check_temperatures(self) -> None:
        valid = {*TEMPERATURE, *(t.name for t in self.teachers), *(t.modality for t in self.teachers)}
        if unknown := sorted(set(self.options.temperature) - valid):
            raise RecipeError(
                f"method.ccl.temperature: there is no teacher or modality '{unknown[0]}'.",
                f"This run has {', '.join(sorted(valid))}.",
            )

    def _temperature(self, teacher: TeacherInfo) -> float:
        """Temperature of the teacher's name, of its modality, or ``other``, in this order."""
        by_name: dict[str, float] = self.options.temperature
        return by_name.get(teacher.name, by_name.get(teacher.modality, by_name["other"]))


class CompositionHead(nn.Module):
    """Residual composition of a teacher's and a student's embedding, followed by a classifier.

    ``x_mv = x_m + W [unit(x_m); unit(x_v)] + b`` and ``z_mv = C x_mv + c`` (Eq. 1). x_m itself is not
    normalised. A teacher with another width than the student is first projected to width D.
    """

    def __init__(self, teacher_dim: int, student_dim: int, num_classes: int, normalize_inputs: bool) -> None:
        super().__init__()
        self.normalize_inputs = normalize_inputs
        self.project: nn.Module = (
            nn.Identity() if teacher_dim == student_dim else nn.Linear(teacher_dim, student_dim, bias=False)
        )
        self.residual = nn.Linear(2 * student_dim, student_dim)  # columns: teacher first, then video
        self.classifier = nn.Linear(student_dim, num_classes)

    def forward(self, teacher: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Compose the embeddings and classify the result.

        Shapes:
            teacher: [B, D], already projected by ``self.project``.
            video: [B, D].
            returns: [B, D] compositional embedding x_mv; [B, K] its class scores z_mv.
        """
        inputs = [teacher, video]
        if self.normalize_inputs:
            inputs = [losses.unit_rows(each) for each in inputs]
        feature = teacher + self.residual(torch.cat(inputs, dim=1))
        return feature, self.classifier(feature)


class _ContrastiveLoss:
    """Contrastive loss of one teacher on one batch (Eq. 3 or 4).

    Labels and masks of all processes are gathered once and used by all terms.
    """

    def __init__(self, options: CCLOptions, temperature: float, labels: Tensor, present: Tensor) -> None:
        self.options, self.temperature = options, temperature
        self.everywhere = gather_mask(present)  # [C]
        self.same_class = labels[:, None] == gather_rows(labels)[None, :]  # [A, C]

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of each row, [B], of ``first`` [B, D] as anchors against ``second`` [B, D], or both ways."""
        one_way = self._one_way(first, second)
        if self.options.symmetric == "none":
            return one_way
        both = one_way + self._one_way(second, first)
        return both if self.options.symmetric == "sum" else both / 2

    def _one_way(self, anchor: Tensor, candidate: Tensor) -> Tensor:
        scores = losses.cosine_scores(anchor, gather_rows(candidate), self.temperature)
        if self.options.contrast == "multiclass":
            return losses.multiclass_nce(scores, self.same_class, self.everywhere)
        own = torch.arange(len(anchor), device=anchor.device) + rank() * len(anchor)
        return losses.info_nce(scores, own, self.everywhere)
