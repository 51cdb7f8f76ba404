"""Relational knowledge distillation (Park et al., CVPR 2019): distances and angles between rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ccl_cli.methods import Batch, Method, MethodOptions, StudentOutput, TeacherBatch
from ccl_cli.methods.components.relational import Rows, distances, relate


class RKDOptions(MethodOptions):
    """Options of ``rkd``."""

    weight: float = Field(1.0, ge=0, description="Weight of both terms.")
    distance: float = Field(25.0, ge=0, description="Weight of the distances.")
    angle: float = Field(50.0, ge=0, description="Weight of the angles.")
    min_distance: float = Field(
        1e-6, ge=0, description="Pairs of rows closer than this share of the mean distance are left out."
    )


class RKD(Method):
    """Matches relative distances between pairs of rows, and angles between triples.

    The loss of an anchor is averaged over the comparable candidates, or pairs of them, and the anchor itself,
    which contributes zero, as in the published code. Angles need O(A C^2) memory.
    """

    Options = RKDOptions
    paper = "Park et al., CVPR 2019"
    needs_labels = False

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return ``distance`` and ``angle``, unless their weight is zero."""
        of_student, of_teacher, present = relate(student.feature, teacher.value, teacher.present)
        ours, theirs = _geometry(of_student, present), _geometry(of_teacher, present)
        # [A, C] candidates that differ from the anchor for both networks; equal rows have no direction.
        pairs = present
        for side in (ours, theirs):
            pairs = pairs & (side.distance > self.options.min_distance * side.mean)
        count = 1 + pairs.sum(dim=1)
        terms = {}
        if self.options.distance > 0:
            terms["distance"] = _huber(_relative(ours, pairs), _relative(theirs, pairs)) / count
        if self.options.angle > 0:
            terms["angle"] = _huber(_cosines(ours, pairs), _cosines(theirs, pairs)) / count.square()
        return {name: values.to(student.feature.dtype) for name, values in terms.items()}

    def weight(self, term: str) -> float:
        """Return the option named like the term, times the option ``weight``."""
        return super().weight(term) * float(getattr(self.options, term))


class _Geometry(NamedTuple):
    """Centred embeddings of one network in float64, and their distances.

    Shapes:
        anchor: [A, D] relative to the centre of the present rows.
        candidate: [C, D] relative to the same centre.
        distance: [A, C] from anchors to candidates.
        mean: Scalar, mean distance over all ordered pairs of different present rows.
    """

    anchor: Tensor
    candidate: Tensor
    distance: Tensor
    mean: Tensor


def _geometry(rows: Rows, present: Tensor) -> _Geometry:
    # Always float64: rows may be much closer to each other than to the origin, and an angle between close
    # rows is a small difference of large products.
    anchor, candidate = rows.anchor.double(), rows.candidate.double()
    count = present.sum()
    centre = torch.where(present[:, None], candidate, 0.0).sum(dim=0) / count.clamp(min=1)
    centre = centre.detach()  # distances and angles do not depend on the centre
    anchor, candidate = anchor - centre, candidate - centre
    pairs = torch.where(present[:, None] & present, distances(candidate, candidate), 0.0)
    mean = pairs.sum() / (count * (count - 1)).clamp(min=1)
    return _Geometry(anchor, candidate, distances(anchor, candidate), mean)


def _huber(ours: Tensor, theirs: Tensor) -> Tensor:
    """Sum of the Huber losses for each anchor, [A]."""
    return F.smooth_l1_loss(ours, theirs, reduction="none").flatten(1).sum(dim=1)


def _relative(side: _Geometry, pairs: Tensor) -> Tensor:
    """Distances divided by their mean, [A, C]."""
    return torch.where(pairs, side.distance / torch.where(side.mean > 0, side.mean, 1.0), 0.0)


def _cosines(side: _Geometry, pairs: Tensor) -> Tensor:
    """Cosine of the angle at anchor i between candidates j and k, [A, C, C], from inner products only."""
    inner = side.anchor @ side.candidate.mT  # [A, C]
    own = side.anchor.square().sum(dim=1)[:, None, None]
    product = side.candidate @ side.candidate.mT - inner[:, :, None] - inner[:, None, :] + own
    inverse = torch.where(pairs, 1 / torch.where(pairs, side.distance, 1.0), 0.0)
    return product * inverse[:, :, None] * inverse[:, None, :]
