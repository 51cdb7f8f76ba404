"""The student's contract: a video network that yields one feature per clip, class scores, and its stages."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from ccl_cli.errors import RecipeError


class StudentOutput(NamedTuple):
    """What a student says about a batch of clips.

    Shapes:
        feature: [B, D] pooled penultimate feature x_v, not normalised.
        logits: [B, K] class scores z_v; [B, 0] of a student that was trained without labels.
        stages: outputs of the residual stages, each [B, C, T, H, W], first to last.
    """

    feature: Tensor
    logits: Tensor
    stages: tuple[Tensor, ...] = ()


class NoClassifier(nn.Module):
    """Stands for the classifier where there are no classes."""

    def forward(self, feature: Tensor) -> Tensor:
        """Scores of no class: [B, D] to [B, 0]."""
        return feature[:, :0]


class Student(nn.Module):
    """A trunk of blocks, pooling over the whole clip, and one linear classifier.

    A network that is more than that overrides :meth:`embed`; one that cannot take every clip overrides
    :meth:`check_clip` as well, and names a clip that it takes.

    Args:
        blocks: Applied in order to [B, 3, T, H, W]; the output of each but the first (the stem) is a stage.
        feature_dim: Dimensions of the pooled feature, D.
        num_classes: K.
        dropout: Probability of dropping a feature before the classifier, in training.
        pool: Turns the last block's output, of any clip, into [B, D, 1, 1, 1]; None: the average.

    Attributes:
        usual_clip: Frames, and height and width in pixels, for which its cost is stated.

    Raises:
        RecipeError: the dropout is no probability below 1.
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
        """The feature of each clip and the outputs of the stages, as in :class:`StudentOutput`."""
        stages = []
        for block in self.blocks:
            video = block(video)
            stages.append(video)
        return self.pool(video).flatten(1), tuple(stages[1:])

    def drop_classifier(self) -> None:
        """Become a network of features alone, for training without labels."""
        self.num_classes, self.classifier = 0, NoClassifier()

    def check_clip(self, frames: int, size: int) -> None:
        """Refuse clips that the network cannot take: ``frames`` of ``size`` by ``size`` pixels.

        Raises:
            RecipeError: with the clips that it takes.
        """


class StudentFactory(Protocol):
    """What a ``ccl.students`` entry point names: builds a student, with random weights unless told otherwise.

    ``weights`` is None (random initialisation: the student is what gets trained) or a path of a weights file.
    Further keyword arguments are the options after ``?`` in the student's spec. A family of networks, whose
    entry point is called ``family.any``, also gets ``model``: what is typed after ``family:``.
    """

    def __call__(self, num_classes: int, *, weights: str | None = None, **options: Any) -> Student:
        """Build the student."""
        ...
