"""A model of transformers that is read from a folder, and the vector that stands for its input."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, WeightsError
from ccl_transformers.families import FAMILIES, POOLS, Family, Pool, family_of

_TRAINING_ONLY = ("masked_spec_embed", "mask_token")  # weights that only pretraining uses


class Source(NamedTuple):
    """Where a model lies, and whether its own code may run.

    Attributes:
        folder: With config.json and safetensors.
        trusted: Whether Python files of the folder are executed.
        spec: As typed, for messages.
    """

    folder: Path
    trusted: bool
    spec: Spec

    def load(self, auto: Any, **arguments: Any) -> Any:
        """What one of transformers' Auto classes makes of the folder, without the network.

        Raises:
            WeightsError: damaged or incomplete, or it needs code of its own.
        """
        common = {"local_files_only": True, "trust_remote_code": self.trusted}
        try:
            return auto.from_pretrained(str(self.folder), **common, **arguments)
        except Exception as error:  # the library raises all kinds for damaged or foreign files
            message = " ".join(str(error).split())
            if "trust_remote_code" in message:
                raise WeightsError(
                    f"'{self.spec.weights}' needs Python code of its own, which is not run unasked.",
                    "Read it, and write ?trust_remote_code=true if you trust it.",
                ) from error
            raise WeightsError(
                f"'{self.spec.weights}' cannot be loaded: {message[:300].rstrip('.')}."
            ) from error


class Encoder(nn.Module):
    """A network and its pooling.

    Args:
        model: Of transformers, or the part of it that embeds.
        family: How it is called.
        pool: See :class:`Family`.
        dim: Width of the embedding.
        fused: Whether the model joins several stretches of a longer track (CLAP).
    """

    def __init__(
        self, model: nn.Module, family: Family, pool: Pool, dim: int, *, fused: bool = False
    ) -> None:
        super().__init__()
        _register_plain_tensors(model)
        self.model, self.family, self.pool, self.dim, self.fused = model, family, pool, dim, fused

    def forward(self, mask: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """Embed a batch.

        Shapes:
            mask: [B, tokens], 1 where a token counts in a mean; all do by default.
            inputs: As the model names them, each [B, ...].
            return: [B, dim] float32.
        """
        made = getattr(self.model, self.family.call)(**inputs, **self.family.arguments)
        if self.pool == "head":
            return _pooled(made)
        tokens: Tensor = made.last_hidden_state.float()
        if self.pool == "cls":
            return tokens[:, 0]
        if mask is None:
            return tokens[:, self.family.prefix :].mean(dim=1)
        weights = mask[..., None].float()
        return (tokens * weights).sum(dim=1) / weights.sum(dim=1)

    def embed_features(self, x: Tensor) -> Tensor:
        """Embed what a processor of pictures or sound makes, ``[B, ...]`` to ``[B, dim]``."""
        inputs = {self._input_name: x}
        if self.fused:  # the sound is never longer than the model hears at once
            inputs["is_longer"] = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
        return self(**inputs)  # type: ignore[no-any-return]

    @property
    def _input_name(self) -> str:
        if self.family.call == "forward":
            return str(self.model.main_input_name)
        return "input_features" if self.family.call == "get_audio_features" else "pixel_values"


def _register_plain_tensors(model: nn.Module) -> None:
    """Let tensors that a model keeps as plain attributes (VideoMAE's positions) follow it to a device."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                delattr(module, name)
                module.register_buffer(name, value, persistent=False)


def load_encoder(source: Source, config: Any, modality: str, wanted: str) -> Encoder:
    """The network of a folder, in float32.

    Args:
        source: Of the files.
        config: Of the model.
        modality: "video", "image", "audio" or "text".
        wanted: The pooling that the user typed, or "".

    Raises:
        PluginError: an architecture without an embedding that is known, or without this pooling.
        WeightsError: the weights do not belong to the architecture.
    """
    family = _family(source.spec, config, modality, wanted)
    classifier = _classifier(config) if modality != "text" else None
    pool = _pool(source.spec, family, wanted, classifier is not None)
    if classifier and pool == "head":
        model = _read(source, config, classifier, family, pool)
        dim = int(next(model.classifier.parameters()).shape[-1])
        model.classifier = nn.Identity()  # what it would have seen comes out as its scores
        return Encoder(model, Family(pool), pool, dim)
    model = _read(source, config, _auto_class(config, modality), family, pool)
    if modality == "text" and config.is_encoder_decoder:
        model = model.get_encoder()
    part = getattr(model, family.part) if family.part else model
    part_config = sub_config(config, modality)
    width = getattr(config, "projection_dim", None) if pool == "head" and family.call != "forward" else None
    fused = modality == "audio" and bool(getattr(part_config, "enable_fusion", False))
    return Encoder(part, family, pool, int(width or part_config.hidden_size), fused=fused)


def sub_config(config: Any, modality: str) -> Any:
    """The configuration of the part for one modality; of a model of one modality the whole."""
    name = "vision_config" if modality in ("image", "video") else f"{modality}_config"
    return getattr(config, name, config)


def _family(spec: Spec, config: Any, modality: str, wanted: str) -> Family:
    kind = config.model_type
    if family := family_of(modality, kind):
        registers = getattr(config, "num_register_tokens", 0)
        return replace(family, prefix=family.prefix + registers) if family.prefix else family
    others = [name for name, families in FAMILIES.items() if kind in families]
    if others:
        raise PluginError(f"'{spec.weights}' is of modality {others[0]}.", f"Write {others[0]}:{spec.name}.")
    for pool in POOLS:
        if pool == wanted:
            return Family(pool)
    raise PluginError(
        f"No published {modality} embedding is known here for the architecture '{kind}'.",
        f"Choose one with ?pool={'|'.join(POOLS)}; known are {', '.join(FAMILIES[modality])}.",
    )


def _pool(spec: Spec, family: Family, wanted: str, classifies: bool) -> Pool:
    """The pooling typed, else what the checkpoint's classifier saw in its training, else the family's."""
    pools = tuple(pool for pool in POOLS if pool in family.pools or (classifies and pool == "head"))
    if not wanted:
        return "head" if classifies else family.pool
    for pool in pools:
        if pool == wanted:
            return pool
    raise PluginError(
        f"{spec.label}: '{spec.weights}' has no pooling '{wanted}'.", f"It has {', '.join(pools)}."
    )


def _classifier(config: Any) -> Any | None:
    """The class of transformers with the head that the checkpoint was trained with, if it classifies."""
    import transformers

    (name,) = (config.architectures or [""])[:1]
    if not re.search("For(Video|Image|Audio|Sequence)Classification$", name):
        return None
    return getattr(transformers, name, None)


def _auto_class(config: Any, modality: str) -> Any:
    import transformers

    if modality == "text" and type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:
        return transformers.AutoModelForTextEncoding
    return transformers.AutoModel


def _read(source: Source, config: Any, auto: Any, family: Family, pool: Pool) -> Any:
    """The model with its weights; parts that nobody needs are gone."""
    with torch.random.fork_rng(devices=[]):  # a teacher does not change the student's initial weights
        torch.manual_seed(0)
        model, report = source.load(
            auto, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    # A pooler that pretraining did not have is drawn at random by the library.
    unused = {*family.unused, *(() if pool == "head" else ("pooler",)), *_TRAINING_ONLY}
    missing = sorted(name for name in report["missing_keys"] if unused.isdisjoint(name.split(".")))
    if missing:
        raise WeightsError(
            f"'{source.spec.weights}' does not hold the weights of its architecture: {len(missing)} tensors "
            f"are missing, {missing[0]} for one.",
            "Choose another ?pool=, or get the model again.",
        )
    for owner in {model, model.base_model}:
        for name in unused:
            if isinstance(getattr(owner, name, None), nn.Module):
                setattr(owner, name, None)
    return model


def _pooled(made: Any) -> Tensor:
    pooled: Tensor | None = made.logits if "logits" in made else made.get("pooler_output")
    if pooled is None:
        raise PluginError("The model pools nothing itself.", "Write ?pool=mean or ?pool=cls.")
    return pooled.float()
