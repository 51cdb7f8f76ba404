"""``text:sentence``: any model of the sentence-transformers library, on class names or captions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from ccl_cli.config.spec import Spec
from ccl_cli.errors import SystemSetupError, WeightsError
from ccl_cli.teachers.class_names import ClassNames, TextTeacher, check_prompt
from ccl_cli.teachers.hub_folder import HubModel, digest_settings
from ccl_cli.teachers.options import read_options
from ccl_cli.teachers.weights import WeightFile
from ccl_cli.utils.download import reason
from ccl_text.captions import digest_of, read_captions
from ccl_text.sentences import Captioned, to_texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
_MODULES = ("[0-9]_*/*.json", "[0-9]_*/*.safetensors")  # pooling and further layers
_NAMES_PROMPT, _CAPTIONS_PROMPT = "a video of {}", "{}"


class SentenceTeacher(TextTeacher):
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
        super().__init__(len(_encode(encoder, ["a"])[0]), variant, preprocess)
        self.encoder = encoder

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Build the teacher from ``text:sentence[@FOLDER|owner/name][?prompt=...{}...&captions=FILE]``."""
        preprocess = _preprocess(spec)
        folder, _ = _model(spec).locate()
        variant = f"{folder.resolve().name}#{digest_settings(folder, '**/*')}"
        return cls(_load(folder, spec), variant, preprocess).freeze()

    @classmethod
    def weight_files(cls, spec: Spec) -> Sequence[WeightFile]:
        """The encoder's files on the Hub, which this method queries; none for a folder."""
        return _model(spec).files()

    def coverage(self, ids: Sequence[str]) -> int:
        """Count the videos with a caption; all of them without captions."""
        if not isinstance(self.preprocess, Captioned):
            return len(ids)
        captions = read_captions(self.preprocess.path, self.preprocess.digest)
        return sum(video in captions for video in ids)

    def embed_sentences(self, sentences: list[str]) -> Tensor:
        """Embed N sentences, ``[N, dim]`` float32."""
        return _encode(self.encoder, sentences)

    def embed_inputs(self, x: Tensor) -> Tensor:
        """Embed captions ``[B, 1024]`` uint8, UTF-8 padded with zeros; a row of zeros gives a zero row."""
        texts = to_texts(x)
        embedding = {"": torch.zeros(self.dim, device=x.device)}
        if distinct := [text for text in dict.fromkeys(texts) if text]:
            embedding |= zip(distinct, self.embed_sentences(distinct).to(x.device), strict=True)
        return torch.stack([embedding[text] for text in texts])


def _encode(encoder: SentenceTransformer, sentences: list[str]) -> Tensor:
    embedding = encoder.encode(sentences, convert_to_tensor=True, show_progress_bar=False)
    assert isinstance(embedding, Tensor)
    return embedding.float()


def _preprocess(spec: Spec) -> ClassNames | Captioned:
    options = read_options(spec, prompt="", captions="")
    prompt = options["prompt"] or (_CAPTIONS_PROMPT if options["captions"] else _NAMES_PROMPT)
    check_prompt(spec, prompt)
    if not options["captions"]:
        return ClassNames(prompt)
    path = os.path.realpath(Path(options["captions"]).expanduser())
    digest = digest_of(path)
    single = all(len(texts) == 1 for texts in read_captions(path, digest).values())
    return Captioned(prompt, digest, single, path)


def _model(spec: Spec) -> HubModel:
    # Without modules.json the library would use a default pooling.
    return HubModel(spec, spec.weights or DEFAULT, marker="modules.json", extra=_MODULES)


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
        raise WeightsError(
            f"'{folder}' cannot be loaded as a sentence encoder: {reason(error)[:200]}."
        ) from error
