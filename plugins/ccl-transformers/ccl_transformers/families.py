"""Which architectures are known, and how the embedding of each is taken, as its authors published it."""

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
        pool: The default: "cls", the first token; "mean" of all tokens but those of ``prefix``; "head", what
            the model itself pools or projects (``pooler_output``).
        pools: Those that it has.
        call: The model's method.
        arguments: Of the method, beside the input.
        prefix: Tokens before those of patches.
        part: The part of the model that embeds; "" for the whole.
        unused: Parts that this modality does not need; they are dropped.
        pad_sentences: Whether sentences are padded to the longest that it reads, as in its training.
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
_WAVE = Family("mean", ("mean",))  # 25 ms of sound to a token, as in Yang et al. 2021 (SUPERB)
_TEXT = Family("mean", POOLS)  # Reimers and Gurevych 2019 (Sentence-BERT)
_DINO = Family("cls", prefix=1)

# By modality and by `model_type` of config.json.
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
        ),  # Ni et al. 2022: frames, projected, then joined by the multi-frame integration transformer
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
    """How this architecture embeds this modality, or None where it is not known."""
    return FAMILIES[modality].get(model_type, _TEXT if modality == "text" else None)
