"""Preprocessing: the caption of a video as UTF-8 bytes, so that workers need no tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ccl_text.captions import read_captions

if TYPE_CHECKING:
    from ccl_cli.data.clips.window import Window
    from ccl_cli.teachers import Views

BYTES = 1024  # maximum length of a sentence, which is more than encoders read


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
    shape: ClassVar[tuple[int]] = (BYTES,)
    dtype: ClassVar[torch.dtype] = torch.uint8

    @property
    def views(self) -> Views | None:
        """One input for the whole video; None if a random caption is drawn, which cannot be cached."""
        return "track" if self.single else None

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
