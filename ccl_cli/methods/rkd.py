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
    """Centred embeddings of one network and their distances.

    Shapes:
        anchor: [A, D] float64, relative to the centre of the present rows.
        candidate: [C, D] float64, relative to the same centre.
        distance: [A, C] from anchors to candidates.
        mean: Scalar, mean distance over all ordered pairs of different present rows.
    """

    anchor: Tensor
    candidate: Tensor
    distance: Tensor
    mean: Tensor


def geometry(rows: Rows, present: Tensor) -> Geometry:
    """Compute centre and distances; absent rows (``present`` is [C] bool) do not affect centre and mean.

    The result is always float64: rows may be much closer to each other than to the origin, and an angle
    between close rows is a small difference of large products.
    """
    anchor, candidate = rows.anchor.double(), rows.candidate.double()
    count = present.sum()
    centre = torch.where(present[:, None], candidate, 0.0).sum(dim=0) / count.clamp(min=1)
    centre = centre.detach()  # distances and angles do not depend on the centre
    anchor, candidate = anchor - centre, candidate - centre
    pairs = torch.where(present[:, None] & present, distances(candidate, candidate), 0.0)
    mean = pairs.sum() / (count * (count - 1)).clamp(min=1)
    return Geometry(anchor, candidate, distances(anchor, candidate), mean)


def comparable(student: Geometry, teacher: Geometry, present: Tensor, min_distance: float = 1e-6) -> Tensor:
    """Mask of pairs, [A, C], whose rows differ for both networks; equal rows have no direction.

    Args:
        student: The student's geometry.
        teacher: The teacher's geometry.
        present: [C] bool.
        min_distance: Two rows differ if their distance is above this share of the mean distance.
    """
    differ = present
    for side in (student, teacher):
        differ = differ & (side.distance > min_distance * side.mean)
    return differ


def distance_loss(student: Geometry, teacher: Geometry, comparable: Tensor) -> Tensor:
    """Huber loss of the distances divided by their mean, for each anchor: [A].

    The loss is averaged over the comparable candidates ([A, C] bool) and the anchor itself, which contributes
    zero, as in the published code.
    """
    ours, theirs = _relative(student, comparable), _relative(teacher, comparable)
    huber = F.smooth_l1_loss(ours, theirs, reduction="none")
    return huber.sum(dim=1) / (1 + comparable.sum(dim=1))


def angle_loss(student: Geometry, teacher: Geometry, comparable: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles between two candidates, seen from each anchor: [A].

    The loss is averaged over the pairs of comparable candidates ([A, C] bool) and the anchor itself, as in
    :func:`distance_loss`. It needs O(A C^2) memory.
    """
    ours, theirs = _cosines(student, comparable), _cosines(teacher, comparable)
    huber = F.smooth_l1_loss(ours, theirs, reduction="none")
    return huber.sum(dim=(1, 2)) / (1 + comparable.sum(dim=1)).square()


def _relative(rows: Geometry, comparable: Tensor) -> Tensor:
    """Distances divided by their mean, [A, C]."""
    return torch.where(comparable, rows.distance / torch.where(rows.mean > 0, rows.mean, 1.0), 0.0)


def _cosines(rows: Geometry, comparable: Tensor) -> Tensor:
    """Cosine of the angle at anchor i between candidates j and k, [A, C, C], from inner products only."""
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
        1e-6, ge=0, description="Pairs of rows closer than this share of the mean distance are left out."
    )


class RKD(Method):
    """Matches relative distances between pairs of rows, and angles between triples."""

    Options = RKDOptions
    paper = "Park et al., CVPR 2019"
    needs_labels = False

    def compare(self, student: StudentOutput, teacher: TeacherBatch, batch: Batch) -> dict[str, Tensor]:
        """Return ``distance`` and ``angle``, unless their weight is zero."""
        relation = relate(student.feature, teacher.value, teacher.present)
        sides = geometry(relation.student, relation.present), geometry(relation.teacher, relation.present)
        pairs = comparable(*sides, relation.present, self.options.min_distance)
        losses = {"distance": distance_loss, "angle": angle_loss}
        return {
            term: loss(*sides, pairs).to(student.feature.dtype)
            for term, loss in losses.items()
            if getattr(self.options, term) > 0
        }

    def weight(self, term: str) -> float:
        """Return the option named like the term, times the option ``weight``."""
        return super().weight(term) * float(getattr(self.options, term))
