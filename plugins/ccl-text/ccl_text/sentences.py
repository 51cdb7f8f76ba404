"""Preprocessing: the sentence of a video as UTF-8 bytes, so that workers need no tokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ccl_cli.errors import PluginError
from ccl_text.captions import read_captions

if TYPE_CHECKING:
    from ccl_cli.data.clips.window import Window
    from ccl_cli.teachers import Views

BYTES = 1024  # maximum length of a sentence, which is more than encoders read
_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\s]+")


@dataclass(frozen=True)
class ClassNames:
    """A sentence with the name of the video's class.

    Attributes:
        prompt: Sentence with ``{}`` for the class name.
        classes: Class names of the data set, by label.
    """

    prompt: str
    classes: tuple[str, ...] = ()
    views: ClassVar[Views] = "track"  # one sentence for the whole video

    @property
    def shape(self) -> tuple[int]:
        """Shape of the input, [bytes]."""
        return (BYTES,)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the input: uint8."""
        return torch.uint8

    @property
    def sentences(self) -> tuple[str, ...]:
        """One sentence per class."""
        return tuple(self.prompt.replace("{}", readable(name)) for name in self.classes)

    def __call__(self, window: Window) -> Tensor | None:
        """Return the sentence ``[bytes]``, see :func:`to_bytes`, or None without a label.

        Raises:
            PluginError: ``classes`` has no name for the label.
        """
        label = window.video.label
        if label is None:
            return None
        if label >= len(self.classes):
            raise PluginError("The text teacher did not receive the class names of the data set.")
        return to_bytes(self.prompt.replace("{}", readable(self.classes[label])))


@dataclass(frozen=True)
class Captioned:
    """A sentence with the video's caption; in training a random one of several captions.

    Attributes:
        prompt: Sentence with ``{}`` for the caption.
        digest: Hash of the captions.
        single: Whether every video has at most one caption.
        path: Path of the captions; not part of the teacher's fingerprint.
    """

    prompt: str
    digest: str
    single: bool
    path: str = field(repr=False)

    @property
    def views(self) -> Views | None:
        """One input for the whole video; None if a random caption is drawn, which cannot be cached."""
        return "track" if self.single else None

    @property
    def shape(self) -> tuple[int]:
        """Shape of the input, [bytes]."""
        return (BYTES,)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the input: uint8."""
        return torch.uint8

    def __call__(self, window: Window) -> Tensor | None:
        """Return the sentence ``[bytes]``, see :func:`to_bytes`, or None without a caption."""
        texts = read_captions(self.path, self.digest).get(window.video.id)
        if not texts:
            return None
        drawn = int(window.rng.integers(len(texts))) if window.training and len(texts) > 1 else 0
        return to_bytes(self.prompt.replace("{}", texts[drawn]))


def to_bytes(text: str) -> Tensor:
    """Encode a sentence in UTF-8, ``[1024]`` uint8, truncated between characters or padded with zeros."""
    encoded = text.encode(errors="replace")[:BYTES].decode(errors="ignore").encode()
    return torch.frombuffer(bytearray(encoded.ljust(BYTES, b"\0")), dtype=torch.uint8)


def to_texts(x: Tensor) -> list[str]:
    """Decode sentences ``[B, 1024]`` uint8; a row of zeros gives ""."""
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in x.cpu().numpy()]


def readable(name: str) -> str:
    """Split names such as ``ApplyEyeMakeup`` and ``apply_eye_makeup`` into words."""
    return _WORD_BOUNDARY.sub(" ", name).strip()
