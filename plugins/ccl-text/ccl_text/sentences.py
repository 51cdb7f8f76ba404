"""The sentence that goes with a video, as bytes: workers need no tokenizer."""

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

BYTES = 1024  # of a sentence; encoders read fewer words than that holds
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\s]+")


@dataclass(frozen=True)
class ClassNames:
    """The name of the video's class, put into a prompt.

    Attributes:
        prompt: With ``{}`` for the name.
        classes: Of the data set, by label.
    """

    prompt: str
    classes: tuple[str, ...] = ()
    views: ClassVar[Views] = "track"  # one sentence serves the whole video

    @property
    def shape(self) -> tuple[int]:
        """[bytes]."""
        return (BYTES,)

    @property
    def dtype(self) -> torch.dtype:
        """uint8."""
        return torch.uint8

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each class."""
        return tuple(self.prompt.replace("{}", readable(name)) for name in self.classes)

    def __call__(self, window: Window) -> Tensor | None:
        """The sentence ``[bytes]``, see :func:`to_bytes`; None where the video has no label."""
        label = window.video.label
        if label is None:
            return None
        if label >= len(self.classes):
            raise PluginError("The text teacher was not given the names of the classes.")
        return to_bytes(self.prompt.replace("{}", readable(self.classes[label])))


@dataclass(frozen=True)
class Captioned:
    """The video's caption, put into a prompt; of several, one is drawn in training.

    Attributes:
        prompt: With ``{}`` for the caption.
        digest: Of the captions.
        single: Whether no video has several.
        path: Of the captions; where they lie does not matter.
    """

    prompt: str
    digest: str
    single: bool
    path: str = field(repr=False)

    @property
    def views(self) -> Views | None:
        """One caption serves the whole video; several are drawn from."""
        return "track" if self.single else None

    @property
    def shape(self) -> tuple[int]:
        """[bytes]."""
        return (BYTES,)

    @property
    def dtype(self) -> torch.dtype:
        """uint8."""
        return torch.uint8

    def __call__(self, window: Window) -> Tensor | None:
        """The sentence ``[bytes]``, see :func:`to_bytes`; None where the video has no caption."""
        texts = read_captions(self.path, self.digest).get(window.video.id)
        if not texts:
            return None
        drawn = int(window.rng.integers(len(texts))) if window.training and len(texts) > 1 else 0
        return to_bytes(self.prompt.replace("{}", texts[drawn]))


def to_bytes(text: str) -> Tensor:
    """A sentence in UTF-8, ``[1024]`` uint8, filled up with zeros; what is longer is cut between letters."""
    whole = text.encode(errors="replace")[:BYTES].decode(errors="ignore").encode()
    return torch.frombuffer(bytearray(whole.ljust(BYTES, b"\0")), dtype=torch.uint8)


def to_texts(x: Tensor) -> list[str]:
    """Sentences of rows ``[B, 1024]``; "" for a row of zeros."""
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in x.cpu().numpy()]


def readable(name: str) -> str:
    """``ApplyEyeMakeup`` and ``apply_eye_makeup`` in words."""
    return _HUMPS.sub(" ", name).strip()
