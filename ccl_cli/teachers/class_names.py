"""Class names as the input of text teachers."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ccl_cli.errors import PluginError
from ccl_cli.teachers import Preprocess, Teacher

if TYPE_CHECKING:
    from ccl_cli.config.spec import Spec
    from ccl_cli.data.clips.window import Window
    from ccl_cli.teachers import Views

_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\s]+")


@dataclass(frozen=True)
class ClassNames:
    """Preprocessing: the number of the video's class, whose name is embedded as a sentence.

    Attributes:
        prompt: Sentence with ``{}`` for the class name.
        classes: Class names of the data set, by label.
    """

    prompt: str
    classes: tuple[str, ...] = ()
    shape: ClassVar[tuple[int]] = (1,)
    dtype: ClassVar[torch.dtype] = torch.int64
    views: ClassVar[Views] = "track"  # one sentence for the whole video

    @property
    def sentences(self) -> list[str]:
        """One sentence per class; ``ApplyEyeMakeup`` and ``apply_eye_makeup`` are split into words."""
        words = (_WORD_BOUNDARY.sub(" ", name).strip() for name in self.classes)
        return [self.prompt.replace("{}", name) for name in words]

    def __call__(self, window: Window) -> Tensor | None:
        """Return the label plus 1, ``[1]`` int64, or None without a label; 0 is for absent rows.

        Raises:
            PluginError: ``classes`` has no name for the label.
        """
        label = window.video.label
        if label is None:
            return None
        if label >= len(self.classes):
            raise PluginError("The text teacher did not receive the class names of the data set.")
        return torch.tensor([label + 1])


class TextTeacher(Teacher):
    """A teacher that embeds class names if its preprocessing is :class:`ClassNames`.

    Attributes:
        class_embeddings: [classes, dim], embeddings of the class names; empty for other inputs.
    """

    class_embeddings: Tensor

    def __init__(self, dim: int, variant: str, preprocess: Preprocess) -> None:
        super().__init__()
        self.dim, self.variant, self.preprocess = dim, variant, preprocess
        self.sees_label = isinstance(preprocess, ClassNames)
        self.register_buffer("class_embeddings", torch.zeros(0, dim), persistent=False)

    @abstractmethod
    def embed_sentences(self, sentences: list[str]) -> Tensor:
        """Embed N sentences, ``[N, dim]`` float32."""

    @abstractmethod
    def embed_inputs(self, x: Tensor) -> Tensor:
        """Embed inputs other than class names."""

    def use_classes(self, classes: Sequence[str]) -> None:
        """Embed the class names once: in other batches, their embeddings would differ in the last digits."""
        if isinstance(self.preprocess, ClassNames) and classes:
            self.preprocess = replace(self.preprocess, classes=tuple(classes))
            with torch.no_grad():
                self.class_embeddings = self.embed_sentences(self.preprocess.sentences)

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch.

        Shapes:
            x: [B, *preprocess.shape]; for class names [B, 1], the label plus 1, where 0 gives a zero row.
            returns: [B, dim] float32.
        """
        if self.sees_label:
            return torch.cat([torch.zeros_like(self.class_embeddings[:1]), self.class_embeddings])[x[:, 0]]
        return self.embed_inputs(x)


def check_prompt(spec: Spec, prompt: str) -> None:
    """Check that a prompt has a place for the text.

    Raises:
        PluginError: it has none.
    """
    if "{}" not in prompt:
        raise PluginError(f"{spec.label}: the prompt '{prompt}' has no {{}} for the text.")
