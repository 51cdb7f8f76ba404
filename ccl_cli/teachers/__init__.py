"""Teacher interface: a frozen network that maps one modality of a video to an embedding."""

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
    """Embeddings of one teacher for a batch.

    Shapes:
        value: [B, D_m]; absent rows are zero.
        present: [B] bool; False if the video lacks this modality.
        stages: Outputs of intermediate stages, each [B, C, ...], first to last; empty unless a method
            requires them and the teacher provides them.
    """

    value: Tensor
    present: Tensor
    stages: tuple[Tensor, ...] = ()


class Teacher(nn.Module):
    """Base class of teachers. Register subclasses under ``ccl.teachers``.

    The training loop is independent of modalities: it calls ``preprocess`` in the workers and ``forward``
    under ``inference_mode`` in evaluation mode, and never wraps, prepares or optimises a teacher.

    Attributes:
        modality: Any string; the part of the teacher's name before the colon.
        dim: Embedding dimension D_m.
        classes: Classes of the teacher's own classifier (AudioSet, ImageNet, ...), if any.
        preprocess: See :class:`Preprocess`.
        variant: Exact network and options (``resnet34.tv_in1k``), for the records of the run.
        random_weights: True if the user requested ``weights=random``; recorded in the run.
        sees_label: True if the preprocessing uses the label or class name of a video. Such a teacher can only
            be used in training: the records state it, it cannot be probed, and its cache depends on the
            labels.
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
        """Build the teacher with its weights.

        Raises:
            WeightsError: the weights are missing; the message gives the expected file.
            PluginError: the name or an option is unknown.
        """
        raise NotImplementedError(f"{cls.__name__} does not define from_spec")

    @classmethod
    def weight_files(cls, spec: Spec) -> Sequence[WeightFile]:
        """Published weight files of this teacher, for ``ccl teachers pull``; empty if there are none."""
        return ()

    def use_classes(self, classes: Sequence[str]) -> None:
        """Receive the class names of the data set by label, once before any video is preprocessed.

        Teachers with ``sees_label`` store them in their preprocessing; the others ignore them.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Embed inputs: ``[B, *preprocess.shape]`` to ``[B, dim]``."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def forward_stages(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return embedding and stage outputs, each ``[B, C, ...]``; no stages unless overridden."""
        return self(x), ()

    def coverage(self, ids: Sequence[str]) -> int:
        """Number of videos that may have an embedding, without reading them."""
        return len(ids)

    def class_probabilities(self, x: Tensor) -> Tensor:
        """Probabilities of the teacher's own classifier: ``[B, len(classes)]``, each in [0, 1].

        Only for teachers with ``classes``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define class_probabilities")

    @property
    def fingerprint(self) -> str:
        """Name, variant, weights hash and preprocessing; the key of embedding caches."""
        network = f"{self.modality}:{type(self).__name__}:{self.variant}"
        name = f"{network}:{self.preprocess_version}:{self.preprocess!r}"
        return f"{hashlib.sha256(name.encode()).hexdigest()[:8]}-{self._weights_hash}"

    @cached_property
    def _weights_hash(self) -> str:
        # Computed once, because it reads all weights, which do not change after freezing.
        return hash_tensors(self.state_dict().items())

    def freeze(self) -> Self:
        """Set evaluation mode, and disable gradients."""
        return self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Do nothing: a teacher stays in evaluation mode."""
        return super().train(False)


def embed(teacher: Teacher, value: Tensor, present: Tensor, *, stages: bool = False) -> Embedding:
    """Compute the embeddings of a frozen teacher; absent rows are zero.

    Shapes:
        value: [B, *preprocess.shape].
        present: [B] bool.
    """
    with torch.inference_mode():
        embedding, inner = teacher.forward_stages(value) if stages else (teacher(value), ())
    # Clones are ordinary tensors, which a head can save for its backward pass.
    return Embedding(
        torch.where(present[:, None], embedding.float().clone(), 0.0),
        present,
        tuple(stage.float().clone() for stage in inner),
    )


def hash_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """Hash names, shapes and values of tensors to 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
