"""Compositional contrastive learning (Chen et al., CVPR 2021, Eq. 1-8), official variant, ablations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Method, MethodOptions, Setting, losses
from ccl_cli.methods.composition import CompositionHead
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.utils.distributed import gather_mask, gather_rows, masked_mean, rank

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
        description="Share of the contrast with the teacher; the rest: with the composition (Eq. 5-6).",
    )
    nce_scale: Weight = Field(1.0, description="Weight of the whole contrast.")
    jsd_weight: Weight = Field(1.0, description="Weight of the divergence between predictions (Eq. 7).")
    cls_weight: Weight = Field(
        1.0,
        description="Weight of the classification loss (Eq. 2, 8): the student's cross-entropy and the "
        "compositions'.",
    )
    teacher_weight: Weight | None = Field(
        None,
        description="Weight of a teacher's contrast and divergence; default 1 (official, if several: 0.5).",
    )
    symmetric: Literal["none", "mean", "sum"] = Field(
        "none", description="Anchors: the video only, or both sides (mean or sum of the directions)."
    )
    gradient: Literal["split", "joint", "official"] = Field(
        "split",
        description="Whether the compositions' cross-entropy trains the student: split no, joint yes.",
    )
    contrast: Literal["multiclass", "infonce"] = Field("multiclass", description="Eq. 4 or Eq. 3.")
    divergence: Literal["half_jeffreys", "js"] = Field("half_jeffreys", description="Eq. 7, or true JS.")
    composition: bool = Field(True, description="Ablation: off contrasts with the teachers alone.")
    nce: bool = Field(True, description="Ablation: off drops the contrast.")
    jsd: bool = Field(True, description="Ablation: off drops the divergence.")
    head_teacher_nce: bool = Field(
        False,
        description="Contrast each composition with its teacher too (official code; trains the head only); "
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
    """One composition head per teacher; contrast in feature space, divergence in prediction space."""

    Options = CCLOptions
    tuned = "teacher_weight"

    def __init__(self, options: CCLOptions, setting: Setting) -> None:
        super().__init__(options, setting)
        self.options = options
        self.teachers = setting.teachers
        self._check_temperatures()
        self.heads = nn.ModuleList(
            CompositionHead(
                teacher.dim,
                setting.student_dim,
                setting.num_classes,
                normalize_inputs=options.normalize_inputs,
            )
            for teacher in setting.teachers
        )
        if not options.composition:
            for head in self.heads:  # only the projection to the student's width is left to train
                head.requires_grad_(False)
                head.get_submodule("project").requires_grad_(True)
        several = len(setting.teachers) > 1
        default_weight = 0.5 if options.preset == "official" and several else 1.0
        self.teacher_weight = default_weight if options.teacher_weight is None else options.teacher_weight
        self.ce_weight = options.cls_weight

    def forward(
        self, student: StudentOutput, teachers: Mapping[str, Embedding], batch: Batch
    ) -> dict[str, Tensor]:
        """``nce``, ``jsd`` and ``ce`` of each teacher (Eq. 8 without the student's own cross-entropy)."""
        terms: dict[str, Tensor] = {}
        for info, head in zip(self.teachers, self.heads, strict=True):
            assert isinstance(head, CompositionHead)
            embedding = teachers[info.name]
            temperature = self._temperature(info.name, info.modality)
            pair = _Pair(self.options, temperature, student, batch.labels, embedding.present)
            for term, value in self._teacher_terms(pair, head, embedding).items():
                terms[f"{term}/{info.name}"] = value
        return terms

    def _check_temperatures(self) -> None:
        known = {*TEMPERATURE, *(t.name for t in self.teachers), *(t.modality for t in self.teachers)}
        if unknown := sorted(set(self.options.temperature) - known):
            raise RecipeError(
                f"method.ccl.temperature: there is no teacher or modality '{unknown[0]}'.",
                f"This run has {', '.join(sorted(known))}.",
            )

    def _temperature(self, name: str, modality: str) -> float:
        by_name = self.options.temperature
        return by_name.get(name, by_name.get(modality, by_name.get("other", 0.1)))

    def _teacher_terms(self, pair: _Pair, head: CompositionHead, embedding: Embedding) -> dict[str, Tensor]:
        options, weight = self.options, self.teacher_weight
        feature, logits = losses.full_precision(pair.student.feature), pair.student.logits
        teacher = head.project(embedding.value.to(feature.dtype))
        if not options.composition:
            return {"nce": weight * options.nce_scale * pair.contrast(feature, teacher)}
        share = options.nce_lambda
        composed = head(teacher, feature)
        # The compositions' cross-entropy is imposed on the heads: seen from there the student is a constant.
        apart = head(teacher, feature.detach())
        terms = {"ce": options.cls_weight * pair.classify(composed if options.gradient == "joint" else apart)}
        if options.nce:
            terms["nce"] = (weight * options.nce_scale) * (
                share * pair.contrast(feature, teacher)
                + (1 - share) * pair.contrast(feature, composed.feature)
            )
        if options.jsd:
            terms["jsd"] = (weight * options.jsd_weight) * pair.diverge(logits, composed.logits)
        if options.gradient == "official":
            # The official loop's first pass trains the heads on the same terms once more, the student held
            # fixed.
            if options.nce:
                terms["nce_head"] = (options.nce_scale * (1 - share)) * pair.contrast(
                    feature.detach(), apart.feature
                )
            if options.jsd:
                terms["jsd_head"] = options.jsd_weight * pair.diverge(logits.detach(), apart.logits)
        if options.nce and options.head_teacher_nce:
            terms["nce_teacher"] = pair.contrast(apart.feature, teacher)
        return terms


class _Pair:
    """Comparisons of a student with one teacher on one batch, averaged over the rows present."""

    def __init__(
        self,
        options: CCLOptions,
        temperature: float,
        student: StudentOutput,
        labels: Tensor,
        present: Tensor,
    ) -> None:
        self.options, self.temperature = options, temperature
        self.student, self.labels, self.present = student, labels, present
        # What every contrast of this teacher shares, gathered once.
        self.everywhere = gather_mask(present)  # [C]
        self.same_class = labels[:, None] == gather_rows(labels)[None, :]  # [A, C]

    def contrast(self, first: Tensor, second: Tensor) -> Tensor:
        """``first`` as anchors against ``second``, or both ways."""
        one_way = self._contrast_one_way(first, second)
        if self.options.symmetric == "none":
            return one_way
        both = one_way + self._contrast_one_way(second, first)
        return both if self.options.symmetric == "sum" else both / 2

    def _contrast_one_way(self, anchor: Tensor, candidate: Tensor) -> Tensor:
        scores = losses.cosine_scores(anchor, gather_rows(candidate), self.temperature)
        if self.options.contrast == "infonce":
            own = torch.arange(len(anchor), device=anchor.device) + rank() * len(anchor)
            return masked_mean(losses.info_nce(scores, own, self.everywhere), self.present)
        return masked_mean(losses.multiclass_nce(scores, self.same_class, self.everywhere), self.present)

    def diverge(self, logits_p: Tensor, logits_q: Tensor) -> Tensor:
        """Divergence between two predictions."""
        half_jeffreys = self.options.divergence == "half_jeffreys"
        divergence = losses.half_jeffreys if half_jeffreys else losses.jensen_shannon
        return masked_mean(divergence(logits_p, logits_q), self.present)

    def classify(self, composed: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy of a composition's class scores."""
        return masked_mean(losses.cross_entropy(composed[1], self.labels), self.present)
