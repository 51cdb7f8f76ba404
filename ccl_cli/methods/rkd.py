"""Relational knowledge distillation (Park et al., CVPR 2019): distances and angles between rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ccl_cli.data.clips.batch import Batch
from ccl_cli.methods import Method, MethodOptions, TeacherBatch
from ccl_cli.methods.components.relational import Rows, distances, relate
from ccl_cli.students import StudentOutput


class Geometry(NamedTuple):
    """Where the rows of one network lie.

    Shapes:
        anchor: [A, D] float64, from the centre of the rows present.
        candidate: [C, D] float64, likewise.
        distance: [A, C] between them.
        mean: Scalar, the mean distance over all ordered pairs of different rows present.
    """

    anchor: Tensor
    candidate: Tensor
    distance: Tensor
    mean: Tensor


def geometry(rows: Rows, present: Tensor) -> Geometry:
    """Measure the rows; those not present ([C] bool) do not enter the centre and the mean.

    In double precision whatever the input: rows may be far closer to each other than to the origin, and an
    angle between close rows is a small difference of large products.
    """
    anchor, candidate = rows.anchor.double(), rows.candidate.double()
    count = present.sum()
    centre = torch.where(present[:, None], candidate, 0.0).sum(dim=0) / count.clamp(min=1)
    centre = centre.detach()  # distances and angles do not depend on it
    anchor, candidate = anchor - centre, candidate - centre
    pairs = torch.where(present[:, None] & present, distances(candidate, candidate), 0.0)
    mean = pairs.sum() / (count * (count - 1)).clamp(min=1)
    return Geometry(anchor, candidate, distances(anchor, candidate), mean)


def comparable(student: Geometry, teacher: Geometry, present: Tensor, min_distance: float = 1e-6) -> Tensor:
    """Pairs, [A, C], whose rows both networks tell apart: a direction between equal rows does not exist.

    Args:
        student: Its rows.
        teacher: Its rows.
        present: [C] bool.
        min_distance: Share of the mean distance above which two rows differ.
    """
    apart = present
    for side in (student, teacher):
        apart = apart & (side.distance > min_distance * side.mean)
    return apart


def distance_loss(student: Geometry, teacher: Geometry, comparable: Tensor) -> Tensor:
    """Huber loss of the distances over their mean, per anchor: [A].

    An average over the comparable candidates, [A, C], and the anchor itself, which contributes zero as in the
    published code.
    """
    ours, theirs = _relative(student, comparable), _relative(teacher, comparable)
    huber = F.smooth_l1_loss(ours, theirs, reduction="none")
    return huber.sum(dim=1) / (1 + comparable.sum(dim=1))


def angle_loss(student: Geometry, teacher: Geometry, comparable: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles at each anchor between two candidates, per anchor: [A].

    An average over the pairs of comparable candidates, [A, C], the anchor itself included as above; it takes
    O(A C^2) memory.
    """
    ours, theirs = _cosines(student, comparable), _cosines(teacher, comparable)
    huber = F.smooth_l1_loss(ours, theirs, reduction="none")
    return huber.sum(dim=(1, 2)) / (1 + comparable.sum(dim=1)).square()


def _relative(rows: Geometry, comparable: Tensor) -> Tensor:
    """Distances over their mean, [A, C]."""
    return torch.where(comparable, rows.distance / torch.where(rows.mean > 0, rows.mean, 1.0), 0.0)


def _cosines(rows: Geometry, comparable: Tensor) -> Tensor:
    """Of the angle at anchor i between candidates j and k, [A, C, C], from inner products alone."""
    inner = rows.anchor @ rows.candidate.mT  # [A, C]
    own = rows.anchor.square().sum(dim=1)[:, None, None]
    product = rows.candidate @ rows.candidate.mT - inner[:, :, None] - inner[:, None, :] + own
    inverse = torch.where(comparable, 1 / torch.where(comparable, rows.distance, 1.0), 0.0)
    return product * inverse[:, :, None] * inverse[:, None, :]


class RKDOptions(MethodOptions):
    """Options of ``rkd``."""

    weight: float = Field(1.0, ge=0, description="Weight of both terms.")
    distance: float = Field(25.0, ge=0, description="Weight of the distances.")
    angle: float = Field(50.0, ge=0, description="Weight of the angles.")
    min_distance: float = Field(
        1e-6, ge=0, description="Rows closer than this share of the mean distance count as equal; left out."
    )


class RKD(Method):
    """Matches relative distances between pairs of rows, and angles between triples."""

    Options = RKDOptions
    paper = "Park et al., CVPR 2019"
    needs_labels = False

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """``distance`` and ``angle``, those that have a share."""
        relation = relate(student.feature, teacher.value, teacher.present)
        sides = geometry(relation.student, relation.present), geometry(relation.teacher, relation.present)
        apart = comparable(*sides, relation.present, self.options.min_distance)
        losses = {"distance": distance_loss, "angle": angle_loss}
        return {
            term: loss(*sides, apart).to(student.feature.dtype)
            for term, loss in losses.items()
            if self._share(term) > 0
        }

    def weight(self, term: str) -> float:
        """The share of a term, times the option ``weight``."""
        return super().weight(term) * self._share(term)

    def _share(self, term: str) -> float:
        return float(self.options.distance if term == "distance" else self.options.angle)
