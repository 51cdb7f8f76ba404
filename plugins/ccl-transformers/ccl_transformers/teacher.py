"""``video:hf``, ``image:hf``, ``audio:hf`` and ``text:hf``: networks of the library transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers import Preprocess
from ccl_cli.teachers.class_names import ClassNames, TextTeacher, check_prompt
from ccl_cli.teachers.hub_folder import HubModel, digest_settings
from ccl_cli.teachers.options import read_options
from ccl_cli.teachers.waveform import check_seconds
from ccl_cli.teachers.weights import WeightFile
from ccl_transformers.families import POOLS
from ccl_transformers.inputs import SHORTEST, FrameSequence, Picture, Sound, process_frames, process_sound
from ccl_transformers.network import Encoder, Source, check_code, load_encoder, sub_config

_SECONDS = 10.0  # of audio, for models without a maximum length
_KALDI_SHIFT = 0.01  # seconds between the frames of AST's spectrogram
_SENTENCES = 64  # batch size for class names
_TOKENS = 512  # maximum length of a sentence


class HubTeacher(TextTeacher):
    """A network of the Hugging Face Hub, with its own processor and the pooling that its authors published.

    The part after ``@`` is owner/name on the Hub, or a folder written by ``save_pretrained``. Weights are
    read only as safetensors, and training downloads nothing.

    Options: ``revision`` (main; branch, tag or commit), ``pool`` (``cls``, ``mean`` or ``head``),
    ``trust_remote_code`` (false), ``seconds`` of audio, ``prompt`` with ``{}`` for the class name
    (``a video of {}``).

    Attributes:
        tokenizer: Tokenizer of a text model, else None.
    """

    def __init__(
        self, modality: str, encoder: Encoder, variant: str, preprocess: Preprocess, tokenizer: Any = None
    ) -> None:
        super().__init__(encoder.dim, variant, preprocess)
        self.modality, self.encoder, self.tokenizer = modality, encoder, tokenizer

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Build the teacher from ``<modality>:hf@owner/name[?revision=main&pool=cls|mean|head&...]``."""
        from transformers import AutoConfig, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # local files load in an instant
        logging.set_verbosity_error()  # load_encoder checks what the library warns about
        options = _options(spec)
        folder, name = _model(spec, options).locate()
        source = Source(folder, options["trust_remote_code"], spec)
        if source.trusted:
            check_code(source)
        config = source.load(AutoConfig)
        encoder = load_encoder(source, config, spec.kind, options["pool"])
        trusted = "&trust_remote_code=true" if source.trusted else ""
        variant = f"{name}?pool={encoder.pool}{trusted}#{digest_settings(folder)}"
        tokenizer = source.load(AutoTokenizer) if spec.kind == "text" else None
        return cls(spec.kind, encoder, variant, _preprocess(source, config, options), tokenizer).freeze()

    @classmethod
    def weight_files(cls, spec: Spec) -> Sequence[WeightFile]:
        """The model's files on the Hub, which this method queries; none for a folder."""
        return _model(spec, _options(spec)).files()

    def embed_inputs(self, x: Tensor) -> Tensor:
        """Embed the output of a processor, ``[B, ...]``."""
        return self.encoder.embed_features(x)

    def embed_sentences(self, sentences: list[str]) -> Tensor:
        """Embed N sentences, ``[N, dim]`` float32."""
        batches = [sentences[start : start + _SENTENCES] for start in range(0, len(sentences), _SENTENCES)]
        return torch.cat([self._encoded(batch) for batch in batches])

    def _encoded(self, sentences: list[str]) -> Tensor:
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


def _model(spec: Spec, options: dict[str, Any]) -> HubModel:
    code = ("*.py",) if options["trust_remote_code"] else ()
    return HubModel(spec, spec.weights or "", revision=options["revision"], extra=code)


def _options(spec: Spec) -> dict[str, Any]:
    defaults: dict[str, Any] = {"revision": "main", "pool": "", "trust_remote_code": False}
    own: dict[str, dict[str, Any]] = {"audio": {"seconds": 0.0}, "text": {"prompt": "a video of {}"}}
    options = read_options(spec, **defaults, **own.get(spec.kind, {}))
    if options["pool"] not in ("", *POOLS):
        raise PluginError(f"{spec.label}: pool must be {' or '.join(POOLS)}, not '{options['pool']}'.")
    check_prompt(spec, options.get("prompt", "{}"))
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
        raise PluginError(
            f"The configuration of '{source.spec.weights}' has no number of frames.", "Choose another model."
        )
    return FrameSequence(processor, _frames_shape(processor, int(count)))


def _video_processor(source: Source) -> Any:
    """The model's video processor; older models have an image processor, which is applied to each frame."""
    from transformers import AutoImageProcessor, AutoVideoProcessor

    try:
        processor = source.load(AutoVideoProcessor)
    except WeightsError:
        return source.load(AutoImageProcessor)
    processor.do_sample_frames = False  # FrameSequence samples the frames
    return processor


def _frames_shape(processor: Any, count: int) -> tuple[int, ...]:
    """Output shape of a processor, [frames, 3, height, width]."""
    return tuple(process_frames(processor, torch.zeros(count, 96, 128, 3, dtype=torch.uint8)).shape)


def _sound(source: Source, seconds: float) -> Sound:
    from transformers import AutoFeatureExtractor

    processor = source.load(AutoFeatureExtractor)
    longest = _longest(processor)
    seconds = float(seconds or longest or _SECONDS)
    if longest and seconds > longest:
        raise PluginError(
            f"'{source.spec.weights}' uses at most {longest:g} s of audio, not {seconds:g}.",
            f"Use ?seconds={longest:g} or less.",
        )
    check_seconds(source.spec, seconds, SHORTEST)
    shortest = SHORTEST if longest else seconds
    silence = torch.zeros(round(processor.sampling_rate * seconds))
    return Sound(
        processor, seconds, shortest, tuple(process_sound(processor, silence, seconds, shortest).shape)
    )


def _longest(processor: Any) -> float | None:
    """Maximum length of a feature extractor's input in seconds; None if it is unlimited."""
    for name, unit in (("chunk_length", 1.0), ("max_length_s", 1.0), ("max_length", _KALDI_SHIFT)):
        if isinstance(value := getattr(processor, name, None), int | float):
            return value * unit
    return None
