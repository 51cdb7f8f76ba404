"""``text:sentence``: any model of the sentence-transformers library, on class names or captions."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, SystemSetupError, WeightsError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.options import read_options
from ccl_cli.teachers.weights import WeightFile
from ccl_text.captions import digest_of, read_captions
from ccl_text.sentences import Captioned, ClassNames, to_texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
# Files of a repository of the library's own models.
_FILES = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "1_Pooling/config.json",
    "model.safetensors",
)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_NAMES_PROMPT, _CAPTIONS_PROMPT = "a video of {}", "{}"


class SentenceTeacher(Teacher):
    """A sentence encoder that embeds the class name of a video, or its caption.

    A teacher of class names sees the label, so it cannot be probed and is used only in training. Captions are
    not labels; a video without a caption is trained without this teacher's terms.

    The part after ``@`` is a folder written by sentence-transformers, or owner/name on the Hugging Face Hub;
    default: sentence-transformers/all-MiniLM-L6-v2 (384-d, Apache-2.0). Training downloads nothing.

    Options: ``captions`` (a CSV file with the columns id and text), ``prompt`` with ``{}`` for the name or
    the caption (``a video of {}`` for names, ``{}`` for captions).
    """

    modality = "text"

    def __init__(
        self, encoder: SentenceTransformer, variant: str, preprocess: ClassNames | Captioned
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.dim = len(self._encoded(["a"])[0])
        self.variant = variant
        self.preprocess: ClassNames | Captioned = preprocess
        self.sees_label = isinstance(preprocess, ClassNames)
        self._class_embeddings: dict[str, Tensor] = {}

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Build the teacher from ``text:sentence[@FOLDER|owner/name][?prompt=...{}...&captions=FILE]``."""
        preprocess = _preprocess(spec)
        folder = _folder(spec)
        # The tokenizer and settings affect the embedding, so their hash is part of the fingerprint.
        variant = f"{folder.resolve().name}#{_digest(folder)}"
        return cls(_load(folder, spec), variant, preprocess).freeze()

    @classmethod
    def weight_files(cls, spec: Spec) -> Sequence[WeightFile]:
        """The files of the default encoder.

        Raises:
            WeightsError: for another encoder of the Hub, which `hf download` must download.
        """
        if spec.weights and spec.weights != DEFAULT:
            if Path(spec.weights).expanduser().is_dir():
                return ()
            raise WeightsError(
                f"`ccl teachers pull` downloads only the default encoder, not '{spec.weights}'.",
                _hint(spec.weights),
            )
        return [_published(name) for name in _FILES]

    def use_classes(self, classes: Sequence[str]) -> None:
        """Store the class names, if the teacher embeds them."""
        if isinstance(self.preprocess, ClassNames):
            self.preprocess = ClassNames(self.preprocess.prompt, tuple(classes))
            self._class_embeddings = {}

    def coverage(self, ids: Sequence[str]) -> int:
        """Count the videos with a caption; all of them without captions."""
        if isinstance(self.preprocess, ClassNames):
            return len(ids)
        captions = read_captions(self.preprocess.path, self.preprocess.digest)
        return sum(video in captions for video in ids)

    def forward(self, x: Tensor) -> Tensor:
        """Embed sentences.

        Shapes:
            x: [B, 1024] uint8, UTF-8 padded with zeros; a row of zeros gives a zero embedding.
            returns: [B, dim] float32.
        """
        texts = to_texts(x)
        known = self._known(texts) | {"": torch.zeros(self.dim, device=x.device)}
        return torch.stack([known[text].to(x.device) for text in texts])

    def _known(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings by text for at least these texts, each encoded once."""
        if isinstance(self.preprocess, ClassNames) and not self._class_embeddings:
            # Encode all class names together: padding changes the last digits of a batch's embeddings, and a
            # resumed run must get the same ones.
            self._class_embeddings = self._embedded(self.preprocess.sentences)
        others = [text for text in dict.fromkeys(texts) if text and text not in self._class_embeddings]
        return self._class_embeddings | self._embedded(others)

    def _embedded(self, texts: Sequence[str]) -> dict[str, Tensor]:
        distinct = list(dict.fromkeys(texts))
        return dict(zip(distinct, self._encoded(distinct), strict=True)) if distinct else {}

    def _encoded(self, texts: list[str]) -> Tensor:
        """Embed N texts, ``[N, dim]`` float32."""
        embedding = self.encoder.encode(texts, convert_to_tensor=True, show_progress_bar=False)
        assert isinstance(embedding, Tensor)
        return embedding.float()


def _preprocess(spec: Spec) -> ClassNames | Captioned:
    options: dict[str, Any] = read_options(spec, prompt="", captions="")
    prompt = options["prompt"] or (_CAPTIONS_PROMPT if options["captions"] else _NAMES_PROMPT)
    if "{}" not in prompt:
        raise PluginError(f"{spec.label}: the prompt '{prompt}' has no {{}} for the text.")
    if not options["captions"]:
        return ClassNames(prompt)
    path = os.path.realpath(Path(options["captions"]).expanduser())
    digest = digest_of(path)
    single = all(len(texts) == 1 for texts in read_captions(path, digest).values())
    return Captioned(prompt, digest, single, path)


def _folder(spec: Spec) -> Path:
    """Find the encoder on this machine, without using the network."""
    wanted = spec.weights or DEFAULT
    folder = Path(wanted).expanduser()
    if not folder.is_dir():
        by_hand = _published("modules.json").path if wanted == DEFAULT else None
        cached = by_hand.parent if by_hand and by_hand.is_file() else _in_hub_cache(wanted)
        if cached is None:
            raise WeightsError(f"The sentence encoder '{wanted}' is not on this machine.", _hint(wanted))
        folder = cached
    # Without modules.json the library would use a default pooling.
    if not (folder / "modules.json").is_file():
        raise WeightsError(
            f"'{folder}' is not a model of sentence-transformers: it has no modules.json.",
            "Give a folder written by SentenceTransformer.save, or download the model again.",
        )
    return folder


def _published(name: str) -> WeightFile:
    """A file of the default encoder. Files copied to ccl's cache by hand form a folder there."""
    return WeightFile(f"{DEFAULT}/{name}", f"hf://{DEFAULT}/{name}", licence="Apache-2.0")


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _hint(wanted: str) -> str:
    if wanted == DEFAULT:
        return "Run `ccl teachers pull text:sentence`, or use a local folder: text:sentence@FOLDER."
    if _HUB_NAME.fullmatch(wanted):
        return f"Run `hf download {wanted}`, or correct the name after '@'."
    return "Give a folder, or owner/name on the Hugging Face Hub, after '@'."


def _load(folder: Path, spec: Spec) -> SentenceTransformer:
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError as error:
        raise SystemSetupError(
            f"{spec.label} needs the library sentence-transformers: {error}.",
            "Install it with `pip install sentence-transformers`.",
        ) from error
    logging.disable_progress_bar()  # local files load in an instant
    options = {"use_safetensors": True}  # no pickles
    try:
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs=options)
    except Exception as error:  # the libraries raise many types for damaged files
        message = " ".join(str(error).split())[:200]
        raise WeightsError(f"'{folder}' cannot be loaded as a sentence encoder: {message}.") from error


def _digest(folder: Path) -> str:
    """Hash of tokenizer, pooling and settings, 8 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".txt", ".model")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
