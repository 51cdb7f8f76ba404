"""Tiny models of real architectures: random weights and real processors, saved as the hub's models are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests.plugins.sentence_encoder import word_tokenizer

_SIZE, _FRAMES, _PATCH = 32, 4, 16
_COMMON = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
_VISION = {**_COMMON, "image_size": _SIZE, "patch_size": _PATCH}
_TEXT = {**_COMMON, "vocab_size": 60, "max_position_embeddings": 16, "projection_dim": 12}
_SQUARE = {"height": _SIZE, "width": _SIZE}
_CROPPED = {"size": {"shortest_edge": _SIZE}, "crop_size": _SQUARE}
_WAVE = {**_COMMON, "conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (10, 16), "vocab_size": 8}
_WAVE |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}


def _tokenizer(**arguments: Any) -> Any:
    return word_tokenizer(model_max_length=16, **{"eos_token": "[SEP]", **arguments})


_CLIP_TEXT = {**_TEXT, "eos_token_id": 3, "pad_token_id": 0}
_CLAP = {"spec_size": 64, "num_mel_bins": 16, "window_size": 2, "patch_size": 4, "patch_stride": [4, 4]}
_CLAP |= {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [1, 2]}
_CLAP |= {"num_hidden_layers": 2, "projection_dim": 12}
_CLAP_TEXT = {**_TEXT, "max_position_embeddings": 20, "type_vocab_size": 1, "pad_token_id": 0}
_CLAP_SOUND = {"feature_size": 16, "sampling_rate": 8000, "hop_length": 40, "max_length_s": 1}
_CLAP_SOUND |= {"fft_window_size": 256, "frequency_max": 4000}
_MIT = {"num_frames": _FRAMES, "mit_hidden_size": 12, "mit_num_attention_heads": 2}
_MIT |= {"mit_num_hidden_layers": 1, "mit_intermediate_size": 24}
_XCLIP = {"projection_dim": 12, "prompt_num_attention_heads": 2, "prompt_layers": 1}
_VJEPA = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2.0}
_VJEPA |= {"crop_size": _SIZE, "patch_size": _PATCH, "frames_per_clip": _FRAMES, "pred_hidden_size": 24}
_VJEPA |= {"pred_num_hidden_layers": 1, "pred_num_attention_heads": 2, "pred_num_mask_tokens": 1}
_VJEPA |= {"num_pooler_layers": 1}
_AST = {**_COMMON, "patch_size": 16, "max_length": 32, "num_mel_bins": 32}
_AST |= {"time_stride": 16, "frequency_stride": 16}
_WHISPER = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "num_mel_bins": 8}
_WHISPER |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_source_positions": 50}
_WHISPER |= {"max_target_positions": 8, "vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1}
_WHISPER |= {"eos_token_id": 2, "decoder_start_token_id": 1, "decoder_ffn_dim": 32}
_VIDEOMAE = {**_VISION, "num_frames": _FRAMES, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}
_VIDEOMAE |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
_T5 = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
_SWIN = {"image_size": _SIZE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}


def _clip() -> Any:
    return hf.CLIPModel(hf.CLIPConfig(text_config=_CLIP_TEXT, vision_config=_VISION, projection_dim=12))


def _siglip() -> Any:
    return hf.SiglipModel(hf.SiglipConfig(text_config=_TEXT, vision_config=_VISION))


def _clap(fused: bool = False) -> Any:
    audio = {**_CLAP, "enable_fusion": fused}
    return hf.ClapModel(hf.ClapConfig(text_config=_CLAP_TEXT, audio_config=audio, projection_dim=12))


def _xclip() -> Any:
    vision = {**_VISION, **_MIT}
    return hf.XCLIPModel(hf.XCLIPConfig(text_config=_CLIP_TEXT, vision_config=vision, **_XCLIP))


_FEW = {"num_labels": 5}
_MODELS = {
    "videomae": lambda: hf.VideoMAEForPreTraining(hf.VideoMAEConfig(**_VIDEOMAE)),
    "videomae-classes": lambda: hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(**_VIDEOMAE, **_FEW)),
    "vjepa2": lambda: hf.VJEPA2Model(hf.VJEPA2Config(**_VJEPA)),
    "vjepa2-classes": lambda: hf.VJEPA2ForVideoClassification(hf.VJEPA2Config(**_VJEPA, **_FEW)),
    "timesformer": lambda: hf.TimesformerModel(hf.TimesformerConfig(**_VISION, num_frames=_FRAMES)),
    "xclip": _xclip,
    "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**_VISION)),
    "dinov2-classes": lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**_VISION, **_FEW)),
    "dinov2-registers": lambda: hf.Dinov2WithRegistersModel(
        hf.Dinov2WithRegistersConfig(**_VISION, num_register_tokens=2)
    ),
    "dinov3": lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**_VISION, num_register_tokens=2)),
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**_VISION), add_pooling_layer=False),
    "vit-classes": lambda: hf.ViTForImageClassification(hf.ViTConfig(**_VISION, **_FEW)),
    "clip": _clip,
    "siglip": _siglip,
    "ast": lambda: hf.ASTModel(hf.ASTConfig(**_AST)),
    "ast-classes": lambda: hf.ASTForAudioClassification(hf.ASTConfig(**_AST, **_FEW)),
    "clap": _clap,
    "clap-fused": lambda: _clap(fused=True),
    "wav2vec2": lambda: hf.Wav2Vec2Model(hf.Wav2Vec2Config(**_WAVE)),
    "hubert": lambda: hf.HubertModel(hf.HubertConfig(**_WAVE)),
    "wavlm": lambda: hf.WavLMModel(hf.WavLMConfig(**_WAVE)),
    "wav2vec2-classes": lambda: hf.Wav2Vec2ForSequenceClassification(hf.Wav2Vec2Config(**_WAVE, **_FEW)),
    "whisper": lambda: hf.WhisperForConditionalGeneration(hf.WhisperConfig(**_WHISPER)),
    "whisper-classes": lambda: hf.WhisperForAudioClassification(hf.WhisperConfig(**_WHISPER, **_FEW)),
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**{**_TEXT, "pad_token_id": 0})),
    "t5": lambda: hf.T5Model(hf.T5Config(**_T5, pad_token_id=0)),
    "swin": lambda: hf.SwinModel(hf.SwinConfig(**_SWIN, window_size=4)),
}
_PROCESSORS = {
    "videomae": lambda: hf.VideoMAEVideoProcessor(**_CROPPED),
    "vjepa2": lambda: hf.VJEPA2VideoProcessor(crop_size=_SIZE),
    "timesformer": lambda: hf.VideoMAEImageProcessor(**_CROPPED),
    "xclip": lambda: hf.CLIPImageProcessor(**_CROPPED),
    "dinov2": lambda: hf.BitImageProcessor(**_CROPPED),
    "dinov3": lambda: hf.DINOv3ViTImageProcessor(size=_SQUARE),
    "vit": lambda: hf.ViTImageProcessor(size=_SQUARE),
    "swin": lambda: hf.ViTImageProcessor(size=_SQUARE),
    "clip": lambda: hf.CLIPImageProcessor(**_CROPPED),
    "siglip": lambda: hf.SiglipImageProcessor(size=_SQUARE),
    "ast": lambda: hf.ASTFeatureExtractor(num_mel_bins=32, max_length=32),
    "clap": lambda: hf.ClapFeatureExtractor(**_CLAP_SOUND, truncation="rand_trunc"),
    "clap-fused": lambda: hf.ClapFeatureExtractor(**_CLAP_SOUND, truncation="fusion"),
    "wav2vec2": lambda: hf.Wav2Vec2FeatureExtractor(),
    "hubert": lambda: hf.Wav2Vec2FeatureExtractor(),
    "wavlm": lambda: hf.Wav2Vec2FeatureExtractor(),
    "whisper": lambda: hf.WhisperFeatureExtractor(feature_size=8, chunk_length=1),
}
_TOKENIZERS = {
    "bert": _tokenizer,
    "t5": _tokenizer,
    "clip": _tokenizer,
    "clap": _tokenizer,
    "siglip": lambda: _tokenizer(model_input_names=["input_ids"]),
}


def write_model(folder: Path, name: str, seed: int = 0) -> Path:
    """Save the tiny model of this name, with the processor and tokenizer that its family has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _MODELS[name]()
    for parameter in model.parameters():  # some begin as zeros, and would hide what is not read
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.save_pretrained(folder)
    for part in (make_processor(name), make_tokenizer(name)):
        if part is not None:
            part.save_pretrained(folder)
    return folder


def make_processor(name: str) -> Any:
    """That of the model of this name, if it sees or hears."""
    make = _PROCESSORS.get(name) or _PROCESSORS.get(name.partition("-")[0])
    return make and make()


def make_tokenizer(name: str) -> Any:
    """That of the model of this name, if it reads."""
    return (name in _TOKENIZERS and _TOKENIZERS[name]()) or None
