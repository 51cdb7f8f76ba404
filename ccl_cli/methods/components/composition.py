"""The composition function of CCL (Eq. 1): a residual composition of teacher and student embeddings."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ccl_cli.methods.components.losses import unit_rows


class Composed(NamedTuple):
    """Output of a composition head.

    Shapes:
        feature: [B, D] compositional embedding x_mv.
        logits: [B, K] class scores z_mv of the compositional embedding.
    """

    feature: Tensor
    logits: Tensor


class CompositionHead(nn.Module):
    """Residual composition of a teacher's and a student's embedding, followed by a classifier.

    ``x_mv = x_m + W [unit(x_m); unit(x_v)] + b`` and ``z_mv = C x_mv + c`` (Eq. 1). x_m itself is not
    normalised. A teacher with another width than the student is first projected to width D.

    Args:
        teacher_dim: Width D_m of the teacher's embedding.
        student_dim: Width D of the student's feature.
        num_classes: Number of classes K.
        normalize_inputs: Scale the inputs of the residual to unit length, as in the paper and official code.
    """

    def __init__(
        self, teacher_dim: int, student_dim: int, num_classes: int, *, normalize_inputs: bool = True
    ) -> None:
        super().__init__()
        self.normalize_inputs = normalize_inputs
        self.project: nn.Module = (
            nn.Identity() if teacher_dim == student_dim else nn.Linear(teacher_dim, student_dim, bias=False)
        )
        self.residual = nn.Linear(2 * student_dim, student_dim)  # columns: teacher first, then video
        self.classifier = nn.Linear(student_dim, num_classes)

    def forward(self, teacher: Tensor, video: Tensor) -> Composed:
        """Compose the embeddings and classify the result.

        Shapes:
            teacher: [B, D], already projected by ``self.project``.
            video: [B, D].
        """
        inputs = (unit_rows(teacher), unit_rows(video)) if self.normalize_inputs else (teacher, video)
        feature = teacher + self.residual(torch.cat(inputs, dim=1))
        return Composed(feature, self.classifier(feature))
