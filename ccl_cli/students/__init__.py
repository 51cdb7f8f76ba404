"""Student interface: a video network that returns a feature per clip, class scores, and its stages."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from ccl_cli.errors import RecipeError


class StudentOutput(NamedTuple):
    """Output of a student for a batch of clips.

    Shapes:
        feature: [B, D] pooled penultimate feature x_v, not normalised.
        logits: [B, K] class scores z_v; [B, 0] for a student that was trained without labels.
        stages: Outputs of the residual stages, each [B, C, T, H, W], first to last.
    """

    feature: Tensor
    logits: Tensor
    stages: tuple[Tensor, ...] = ()


class NoClassifier(nn.Module):
    """Classifier without classes, for training without labels."""

    def forward(self, feature: Tensor) -> Tensor:
        """Map [B, D] to [B, 0]."""
        return feature[:, :0]


class Student(nn.Module):
    """A trunk of blocks, global pooling, and a linear classifier.

    Networks with another structure override :meth:`embed`. Networks that restrict the clip size also override
    :meth:`check_clip`, and give a supported clip.

    Args:
        blocks: Applied in order to [B, 3, T, H, W]; the output of each but the first (the stem) is a stage.
        feature_dim: Dimension D of the pooled feature.
        num_classes: Number of classes, K.
        dropout: Dropout probability before the classifier.
        pool: Pooling from the last block's output to [B, D, 1, 1, 1]. Default: average pooling.

    Attributes:
        usual_clip: Number of frames, and height and width in pixels, of the clip for which the cost is
            stated.

    Raises:
        RecipeError: the dropout is not in [0, 1).
    """

    usual_clip: tuple[int, int] = (16, 112)

    def __init__(
        self,
        blocks: nn.ModuleList,
        feature_dim: int,
        num_classes: int,
        dropout: float = 0.0,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise RecipeError(f"The student's dropout must be at least 0 and below 1, not {dropout}.")
        self.blocks = blocks
        self.feature_dim = feature_dim
        self.num_classes = num_classes
        self.pool = nn.AdaptiveAvgPool3d(1) if pool is None else pool
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Module = nn.Linear(feature_dim, num_classes)

    def forward(self, video: Tensor) -> StudentOutput:
        """Run the network.

        Shapes:
            video: [B, 3, T, H, W] floating point, normalised.
        """
        feature, stages = self.embed(video)
        return StudentOutput(feature, self.classifier(self.dropout(feature)), stages)

    def embed(self, video: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the feature of each clip and the outputs of the stages, as in :class:`StudentOutput`."""
        stages = []
        for block in self.blocks:
            video = block(video)
            stages.append(video)
        return self.pool(video).flatten(1), tuple(stages[1:])

    def drop_classifier(self) -> None:
        """Remove the classifier, for training without labels."""
        self.num_classes, self.classifier = 0, NoClassifier()

    def check_clip(self, frames: int, size: int) -> None:
        """Check that the network supports clips of ``frames`` frames of ``size`` by ``size`` pixels.

        Raises:
            RecipeError: the clip is not supported; the message gives supported clips.
        """


class StudentFactory(Protocol):
    """Signature of a ``ccl.students`` entry point, which builds a student.

    ``weights`` is None for random initialisation, or the path of a file: a published one or a model written
    by ccl. Further keyword arguments are the options after ``?`` in the student's name, such as ``dropout``,
    the probability before the classifier. An entry point ``family.any`` also gets ``model``, the text after
    ``family:``.

    Raises:
        RecipeError: an option has an invalid value.
        WeightsError: the file is missing, damaged, or belongs to another network.
    """

    def __call__(self, num_classes: int, *, weights: str | None = None, **options: Any) -> Student:
        """Build the student."""
        ...
