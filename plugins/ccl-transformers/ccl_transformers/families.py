"""Supported architectures, and how each computes its published embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Pool = Literal["cls", "mean", "head"]
POOLS: tuple[Pool, ...] = get_args(Pool)


@dataclass(frozen=True)
class Family:
    """How an architecture embeds its input.

    Attributes:
        pool: Default pooling. "cls": the first token; "mean": the mean of all tokens after ``prefix``;
            "head": the model's own pooling or projection (``pooler_output``).
        pools: Supported poolings.
        call: Method of the model to call.
        arguments: Further arguments of that method.
        prefix: Number of tokens before the patch tokens.
        part: Attribute of the model that is used; "" for the whole model.
        unused: Parts that this modality does not need; they are removed.
        pad_sentences: Pad sentences to the maximum length, as in the model's training.
    """

    pool: Pool
    pools: tuple[Pool, ...] = POOLS
    call: str = "forward"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    prefix: int = 0
    part: str = ""
    unused: tuple[str, ...] = ()
    pad_sentences: bool = False


_NO_TEXT = ("text_model", "text_projection")
_WAVE = Family("mean", ("mean",))  # 25 ms of audio per token, as in Yang et al. 2021 (SUPERB)
_TEXT = Family("mean", POOLS)  # Reimers and Gurevych 2019 (Sentence-BERT)
_DINO = Family("cls", prefix=1)

# By modality and `model_type` in config.json.
FAMILIES: Mapping[str, Mapping[str, Family]] = {
    "video": {
        "videomae": Family("mean", ("mean",)),  # Tong et al. 2022, appendix: no class token
        "vjepa2": Family(
            "mean", ("mean",), arguments={"skip_predictor": True}, unused=("predictor",)
        ),  # Assran et al. 2025
        "timesformer": Family("cls", ("cls", "mean"), prefix=1),  # Bertasius et al. 2021, section 3
        "xclip": Family(
            "head",
            ("head",),
            "get_video_features",
            unused=(*_NO_TEXT, "prompts_generator", "prompts_visual_layernorm"),
        ),  # Ni et al. 2022: projected frames, combined by the multi-frame integration transformer
    },
    "image": {
        "dinov2": _DINO,  # Oquab et al. 2023
        "dinov2_with_registers": _DINO,
        "dinov3_vit": _DINO,
        "vit": Family("cls", prefix=1),  # Dosovitskiy et al. 2021
        "clip": Family("head", call="get_image_features", prefix=1, unused=_NO_TEXT),  # Radford et al. 2021
        "siglip": Family(
            "head", ("mean", "head"), "get_image_features", unused=("text_model",)
        ),  # Zhai et al. 2023: attention pooling
    },
    "audio": {
        # Gong et al. 2021: the mean of a class token and a distillation token.
        "audio-spectrogram-transformer": Family("head", prefix=2),
        "clap": Family("head", ("head",), "get_audio_features", unused=_NO_TEXT),  # Wu et al. 2023
        "wav2vec2": _WAVE,
        "hubert": _WAVE,
        "wavlm": _WAVE,
        "whisper": Family("mean", ("mean",), part="encoder", unused=("decoder",)),
    },
    "text": {
        "clip": Family("head", ("head",), "get_text_features", unused=("vision_model", "visual_projection")),
        "siglip": Family(
            "head", ("head",), "get_text_features", unused=("vision_model",), pad_sentences=True
        ),
        "clap": Family("head", ("head",), "get_text_features", unused=("audio_model", "audio_projection")),
    },
}


def family_of(modality: str, model_type: str) -> Family | None:
    """Return the family of an architecture for a modality, or None if it is unknown."""
    return FAMILIES[modality].get(model_type, _TEXT if modality == "text" else None)
