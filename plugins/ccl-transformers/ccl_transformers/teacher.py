"""``video:hf``, ``image:hf``, ``audio:hf`` and ``text:hf``: networks of the library transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers import Preprocess, Teacher
from ccl_cli.teachers.options import read_options
from ccl_cli.teachers.weights import WeightFile
from ccl_transformers.families import POOLS
from ccl_transformers.hub import check_code, digest_settings, locate_model, published_files
from ccl_transformers.inputs import (
    SHORTEST,
    ClassNames,
    FrameSequence,
    Picture,
    Sound,
    process_frames,
    process_sound,
)
from ccl_transformers.network import Encoder, Source, load_encoder, sub_config

_SECONDS = 10.0  # of sound, for models that hear any length
_KALDI_SHIFT = 0.01  # seconds between the frames of AST's spectrogram
_SENTENCES = 64  # encoded together
_TOKENS = 512  # of a sentence, at most


class HubTeacher(Teacher):
    """A network of the Hugging Face hub, with its own processor and the pooling that its authors published.

    After ``@`` stands owner/name on the hub, or a folder that ``save_pretrained`` wrote. Weights are read as
    safetensors only, and nothing is downloaded in training.

    Options: ``revision`` (branch, tag or commit: main), ``pool`` (``cls``, ``mean`` or ``head``),
    ``trust_remote_code`` (false; true only where it is typed), ``seconds`` of sound, ``prompt`` with ``{}``
    for the class's name (``a video of {}``).

    Attributes:
        tokenizer: Of a text model.
        of_classes: [classes, dim], the embedding of each class's name; empty for other modalities.
    """

    of_classes: Tensor

    def __init__(
        self, modality: str, encoder: Encoder, variant: str, preprocess: Preprocess, tokenizer: Any = None
    ) -> None:
        super().__init__()
        self.modality, self.encoder, self.dim = modality, encoder, encoder.dim
        self.variant, self.preprocess, self.tokenizer = variant, preprocess, tokenizer
        self.sees_label = isinstance(preprocess, ClassNames)
        self.register_buffer("of_classes", torch.zeros(0, self.dim), persistent=False)

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """``MODALITY:hf@OWNER/NAME|FOLDER[?revision=main&pool=cls|mean|head&trust_remote_code=false]``."""
        from transformers import AutoConfig, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # a file on disk is there at once
        logging.set_verbosity_error()  # what the library warns of is checked here
        options = _options(spec)
        model = locate_model(spec, options["revision"])
        if options["trust_remote_code"]:
            check_code(model.path, spec)
        source = Source(model.path, options["trust_remote_code"], spec)
        config = source.load(AutoConfig)
        encoder = load_encoder(source, config, spec.kind, options["pool"])
        trusted = "&trust_remote_code=true" if source.trusted else ""
        variant = f"{model.name}?pool={encoder.pool}{trusted}#{digest_settings(model.path)}"
        tokenizer = source.load(AutoTokenizer) if spec.kind == "text" else None
        return cls(spec.kind, encoder, variant, _preprocess(source, config, options), tokenizer).freeze()

    @classmethod
    def weight_files(cls, spec: Spec) -> Sequence[WeightFile]:
        """The model's files on the hub, which is asked for their names; a folder needs none."""
        options = _options(spec)
        return published_files(spec, options["revision"], options["trust_remote_code"])

    def use_classes(self, classes: Sequence[str]) -> None:
        """Embed the names once, if they are what it reads."""
        if not isinstance(self.preprocess, ClassNames) or not classes:
            return
        self.preprocess = ClassNames(self.preprocess.prompt, tuple(classes))
        sentences = self.preprocess.sentences
        batches = [sentences[start : start + _SENTENCES] for start in range(0, len(sentences), _SENTENCES)]
        with torch.no_grad():
            self.of_classes = torch.cat([self._encoded(batch) for batch in batches])

    def forward(self, x: Tensor) -> Tensor:
        """Embed a batch.

        Shapes:
            x: [B, *preprocess.shape]; of text [B, 1], the class's number from 1 on, 0 gives zeros.
            return: [B, dim] float32.
        """
        if self.sees_label:
            return torch.cat([torch.zeros_like(self.of_classes[:1]), self.of_classes])[x[:, 0]]
        return self.encoder.embed_features(x)

    def _encoded(self, sentences: list[str]) -> Tensor:
        """``[N, dim]`` float32."""
        positions = getattr(sub_config(self.encoder.model.config, "text"), "max_position_embeddings", _TOKENS)
        tokens = self.tokenizer(
            sentences,
            padding="max_length" if self.encoder.family.pad_sentences else True,
            truncation=True,
            max_length=min(self.tokenizer.model_max_length, positions, _TOKENS),
            return_attention_mask=True,
            return_tensors="pt",
        )
        inputs = {
            name: tokens[name]
            for name in ("input_ids", "attention_mask")
            if name in self.tokenizer.model_input_names
        }
        return self.encoder(tokens["attention_mask"], **inputs)  # type: ignore[no-any-return]


def _options(spec: Spec) -> dict[str, Any]:
    defaults: dict[str, Any] = {"revision": "main", "pool": "", "trust_remote_code": False}
    own: dict[str, dict[str, Any]] = {"audio": {"seconds": 0.0}, "text": {"prompt": "a video of {}"}}
    options = read_options(spec, **defaults, **own.get(spec.kind, {}))
    if options["pool"] not in ("", *POOLS):
        raise PluginError(f"{spec.label}: ?pool= is one of {', '.join(POOLS)}, not '{options['pool']}'.")
    if "{}" not in options.get("prompt", "{}"):
        raise PluginError(f"{spec.label}: the prompt '{options['prompt']}' has no {{}} for the class's name.")
    return options


def _preprocess(source: Source, config: Any, options: dict[str, Any]) -> Preprocess:
    modality = source.spec.kind
    if modality == "text":
        return ClassNames(options["prompt"])
    if modality == "audio":
        return _sound(source, options["seconds"])
    from transformers import AutoImageProcessor

    if modality == "image":
        processor = source.load(AutoImageProcessor)
        return Picture(processor, _frames_shape(processor, 1)[1:])
    processor = _video_processor(source)
    part = sub_config(config, "video")
    count = getattr(part, "num_frames", None) or getattr(part, "frames_per_clip", None)
    if count is None:
        raise PluginError(f"'{source.spec.weights}' does not say how many frames it takes.")
    return FrameSequence(processor, _frames_shape(processor, int(count)))


def _video_processor(source: Source) -> Any:
    """The model's video processor; older models have one for pictures, which takes frame by frame."""
    from transformers import AutoImageProcessor, AutoVideoProcessor

    try:
        processor = source.load(AutoVideoProcessor)
    except WeightsError:
        return source.load(AutoImageProcessor)
    processor.do_sample_frames = False  # the frames are chosen already
    return processor


def _frames_shape(processor: Any, count: int) -> tuple[int, ...]:
    """[frames, 3, height, width] of what a processor makes."""
    return tuple(process_frames(processor, torch.zeros(count, 96, 128, 3, dtype=torch.uint8)).shape)


def _sound(source: Source, seconds: float) -> Sound:
    from transformers import AutoFeatureExtractor

    processor = source.load(AutoFeatureExtractor)
    longest = _longest(processor)
    seconds = float(seconds or longest or _SECONDS)
    if longest and seconds > longest:
        raise PluginError(
            f"'{source.spec.weights}' hears at most {longest:g} s of sound, not {seconds:g}.",
            f"Write ?seconds={longest:g} or less.",
        )
    if not seconds >= SHORTEST:
        raise PluginError(f"{source.spec.label} needs at least {SHORTEST} seconds, not {seconds:g}.")
    shortest = SHORTEST if longest else seconds
    silence = torch.zeros(round(processor.sampling_rate * seconds))
    return Sound(
        processor, seconds, shortest, tuple(process_sound(processor, silence, seconds, shortest).shape)
    )


def _longest(processor: Any) -> float | None:
    """Seconds of sound that a feature extractor does not cut; None where it takes any length."""
    for name, unit in (("chunk_length", 1.0), ("max_length_s", 1.0), ("max_length", _KALDI_SHIFT)):
        if isinstance(value := getattr(processor, name, None), int | float):
            return value * unit
    return None
