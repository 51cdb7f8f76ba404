"""Compositional contrastive learning (Chen et al., CVPR 2021, Eq. 1-8), official variant, ablations."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Method, MethodOptions, Setting, TeacherBatch, TeacherInfo
from ccl_cli.methods.components import losses
from ccl_cli.methods.components.composition import CompositionHead
from ccl_cli.students import StudentOutput
from ccl_cli.utils.distributed import gather_mask, gather_rows, rank

Weight = Annotated[float, Field(ge=0)]

TEMPERATURE = {"audio": 0.5, "image": 0.1, "other": 0.1}

# Where the official code departs from the paper. Its two contrasts carry weight 1 each, not lambda and 1 -
# lambda.
OFFICIAL: dict[str, Any] = {
    "symmetric": "sum",
    "nce_scale": 2.0,
    "gradient": "official",
    "head_teacher_nce": True,
}


class CCLOptions(MethodOptions):
    """Options of ``ccl``; the defaults are the paper's."""

    preset: Literal["paper", "official"] = Field(
        "paper", description="official: the published code's losses (recipe ucf51-official has the rest)."
    )
    temperature: dict[str, Annotated[float, Field(gt=0)]] = Field(
        TEMPERATURE,
        description="By modality, or by teacher as modality:name; others keep their default.",
    )
    nce_lambda: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the contrastive loss with the teacher; the rest: with the composition.",
    )
    nce_scale: Weight = Field(1.0, description="Weight of both contrastive losses (Eq. 5, 6).")
    jsd_weight: Weight = Field(1.0, description="Weight of the divergence between predictions (Eq. 7).")
    cls_weight: Weight = Field(
        1.0,
        description="Weight of the classification loss (Eq. 2, 8): the student's cross-entropy and the "
        "compositions'.",
    )
    teacher_weight: Weight | None = Field(
        None,
        description="Weight of a teacher's contrastive losses and divergence; default 1 (official: 0.5 if "
        "there are several).",
    )
    symmetric: Literal["none", "mean", "sum"] = Field(
        "none", description="none: videos are the anchors, as in Eq. 4; mean or sum: of both directions."
    )
    gradient: Literal["split", "joint", "official"] = Field(
        "split",
        description="split: the compositions' cross-entropy does not train the student; joint: it does; "
        "official: gradients of the published code.",
    )
    contrast: Literal["multiclass", "infonce"] = Field(
        "multiclass", description="multiclass: Eq. 4; infonce: Eq. 3 (ablation)."
    )
    divergence: Literal["half_jeffreys", "js"] = Field(
        "half_jeffreys", description="half_jeffreys: the formula of Eq. 7; js: the Jensen-Shannon divergence."
    )
    composition: bool = Field(
        True, description="false: no composition, no divergence, and all weight on the teachers (ablation)."
    )
    nce: bool = Field(True, description="false: no contrastive loss (ablation).")
    jsd: bool = Field(True, description="false: no divergence (ablation).")
    head_teacher_nce: bool = Field(
        False,
        description="Contrast each composition with its teacher too (published code; trains the head only); "
        "needs nce.",
    )
    normalize_inputs: bool = Field(True, description="Unit-length inputs of the composition's residual.")

    @field_validator("temperature")
    @classmethod
    def _keep_other_temperatures(cls, values: dict[str, float]) -> dict[str, float]:
        return TEMPERATURE | values

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") == "official":
            return {**OFFICIAL, **values}
        return values

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
        """The composition function and its classifier (Eq. 1)."""
        head = CompositionHead(
            teacher.dim,
            setting.student_dim,
            setting.num_classes,
            normalize_inputs=self.options.normalize_inputs,
        )
        if not self.options.composition:  # only the projection to the student's width is left to train
            head.requires_grad_(False)
            head.project.requires_grad_(True)
        return head

    def weight(self, term: str) -> float:
        """Of each term of Eq. 8, and of the official code's."""
        options = self.options
        nce, jsd = options.nce_scale, options.jsd_weight
        weights = {
            "ce": options.cls_weight,
            "nce": self.teacher_weight * nce,
            "jsd": self.teacher_weight * jsd,
            # What trains the heads once more does not know the teacher's weight.
            "nce_head": nce * (1 - options.nce_lambda),
            "jsd_head": jsd,
            "nce_teacher": 1.0,
        }
        return float(weights[term])

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """``nce``, ``jsd`` and ``ce`` (Eq. 8 without the student's own cross-entropy)."""
        options, feature, logits, head = self.options, student.feature, student.logits, teacher.head
        embedding = head.project(teacher.value)
        contrast = _Contrast(options, self._temperature(teacher.info), batch.labels, teacher.present)
        if not options.composition:
            return {"nce": contrast(feature, embedding)}
        composed = head(embedding, feature)
        # The compositions' cross-entropy is imposed on the heads: seen from there the student is a constant.
        apart = head(embedding, feature.detach())
        classified = composed if options.gradient == "joint" else apart
        terms = {"ce": losses.cross_entropy(classified.logits, batch.labels)}
        if options.nce:
            share = options.nce_lambda
            with_teacher, with_composition = contrast(feature, embedding), contrast(feature, composed.feature)
            terms["nce"] = share * with_teacher + (1 - share) * with_composition
        if options.jsd:
            terms["jsd"] = self._divergence(logits, composed.logits)
        # The official loop's first pass trains the heads on the same terms once more, the student held fixed.
        official = options.gradient == "official"
        if official and options.nce:
            terms["nce_head"] = contrast(feature.detach(), apart.feature)
        if official and options.jsd:
            terms["jsd_head"] = self._divergence(logits.detach(), apart.logits)
        if options.nce and options.head_teacher_nce:
            terms["nce_teacher"] = contrast(apart.feature, embedding)
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
        """By the teacher's name, else by its modality; the options fill in ``other``."""
        by_name: dict[str, float] = self.options.temperature
        return by_name.get(teacher.name, by_name.get(teacher.modality, by_name["other"]))


class _Contrast:
    """The contrastive loss of one teacher on one batch (Eq. 3 or 4), for each row, [B].

    What all its uses share is gathered once.
    """

    def __init__(self, options: CCLOptions, temperature: float, labels: Tensor, present: Tensor) -> None:
        self.options, self.temperature = options, temperature
        self.everywhere = gather_mask(present)  # [C]
        self.same_class = labels[:, None] == gather_rows(labels)[None, :]  # [A, C]

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """``first`` as anchors against ``second``, or both ways."""
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
