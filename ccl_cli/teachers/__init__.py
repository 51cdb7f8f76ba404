"""The teacher's contract: a frozen network that turns one modality of a video into one embedding."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from ccl_cli.data.clips.preprocess import Preprocess as Preprocess

Views = Literal["track", "frame", "clip"]

if TYPE_CHECKING:
    from ccl_cli.config.spec import Spec
    from ccl_cli.teachers.weights import WeightFile


class Embedding(NamedTuple):
    """One teacher's embeddings of one batch.

    Shapes:
        value: [B, D_m]; a row that is not present is zero.
        present: [B] bool; False where the sample lacks this modality.
        stages: outputs of the teacher's inner stages, each [B, C, ...], first to last; empty unless a method
            wants them and the teacher has them.
    """

    value: Tensor
    present: Tensor
    stages: tuple[Tensor, ...] = ()


class Teacher(nn.Module):
    """A frozen network. Subclass it, register the class under ``ccl.teachers``, and it works.

    The training loop knows no modality by name: it calls ``preprocess`` in the workers and ``forward`` under
    ``inference_mode`` in evaluation mode, and never wraps, prepares or optimises a teacher.

    Attributes:
        modality: Free string; the part before the colon of the teacher's name.
        dim: Width D_m of the embedding.
        classes: What the teacher's own classifier predicts (AudioSet, ImageNet, ...), if it has one.
        preprocess: See :class:`Preprocess`.
        variant: Exact network and options behind the name (``resnet34.tv_in1k``), for the run's records.
        random_weights: True only when the user asked for ``weights=random``; the run's records say so.
        sees_label: True where the preprocess looks at a video's label or the name of its class. Such a
            teacher is of use in training only: records say so, it cannot be probed, and a cache of its
            embeddings belongs to the labels too.
    """

    modality: str
    dim: int
    classes: Sequence[str] | None = None
    preprocess: Preprocess
    variant: str = ""
    random_weights: bool = False
    sees_label: bool = False
    preprocess_version: ClassVar[int] = 1

    @classmethod
    @abstractmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Build the teacher that ``spec`` names, with its weights.

        Raises:
            WeightsError: no weights (the sentence says which file to put where).
            PluginError: unknown name or option.
        """
        raise NotImplementedError(f"{cls.__name__} does not define from_spec")

    @classmethod
    def weight_files(cls, spec: Spec) -> Sequence[WeightFile]:
        """The published files this teacher needs, for ``ccl teachers pull``; empty when it needs none."""
        return ()

    def use_classes(self, classes: Sequence[str]) -> None:
        """The data set's class names by label, told once before any video is looked at.

        Only a teacher that ``sees_label`` has a use for them; it keeps them in its preprocess.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Embed ``x``, ``[B, *preprocess.shape]`` to ``[B, dim]``."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def forward_stages(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The embedding and the outputs of the inner stages, each ``[B, C, ...]``; none unless overridden."""
        return self(x), ()

    def coverage(self, ids: Sequence[str]) -> int:
        """How many of these videos it may have an embedding for, without reading them."""
        return len(ids)

    def class_probabilities(self, x: Tensor) -> Tensor:
        """What the teacher's own classifier says of ``x``: ``[B, len(classes)]``, each in [0, 1].

        Only teachers with ``classes`` have it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define class_probabilities")

    @property
    def fingerprint(self) -> str:
        """Name, variant, hash of the weights, and preprocess: what an embedding cache is keyed by."""
        network = f"{self.modality}:{type(self).__name__}:{self.variant}"
        name = f"{network}:{self.preprocess_version}:{self.preprocess!r}"
        return f"{hashlib.sha256(name.encode()).hexdigest()[:8]}-{self._weights_hash}"

    @cached_property
    def _weights_hash(self) -> str:
        # Hundreds of megabytes, read once: the weights are frozen before anybody asks for it.
        return hash_tensors(self.state_dict().items())

    def freeze(self) -> Self:
        """Evaluation mode, no gradients."""
        return self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """A teacher never leaves evaluation mode."""
        return super().train(False)


def embed(teacher: Teacher, value: Tensor, present: Tensor, *, stages: bool = False) -> Embedding:
    """A frozen teacher's embeddings; rows that are not present are zero.

    Shapes:
        value: [B, *preprocess.shape].
        present: [B] bool.
    """
    with torch.inference_mode():
        embedding, inner = teacher.forward_stages(value) if stages else (teacher(value), ())
    # The clones are ordinary tensors: a head's backward pass may keep them.
    return Embedding(
        torch.where(present[:, None], embedding.float().clone(), 0.0),
        present,
        tuple(stage.float().clone() for stage in inner),
    )


def hash_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """Sixteen hex digits that change when any name, shape or value changes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
