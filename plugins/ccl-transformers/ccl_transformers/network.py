"""Load a model of transformers from a folder, and pool its output to an embedding."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ccl_cli.config.spec import Spec
from ccl_cli.config.trust import VARIABLE, is_code_trusted
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers.classifier import fixed_seed
from ccl_cli.utils.download import reason
from ccl_transformers.families import FAMILIES, POOLS, Family, Pool, family_of

_EXTERNAL_CODE = re.compile(r'"([\w.-]+/[\w.-]+)--[\w.]+"')  # code of another repository, in an auto_map
_TRAINING_ONLY = ("masked_spec_embed", "mask_token")  # weights used only in pretraining


class Source(NamedTuple):
    """The folder of a model.

    Attributes:
        folder: Folder with config.json and safetensors.
        trusted: Whether Python files of the folder may be executed.
        spec: Spec of the user, for messages.
    """

    folder: Path
    trusted: bool
    spec: Spec

    def load(self, auto: Any, **arguments: Any) -> Any:
        """Load the folder with an Auto class of transformers, without using the network.

        Raises:
            WeightsError: the files are damaged or incomplete, or need the model's own Python code.
        """
        common = {"local_files_only": True, "trust_remote_code": self.trusted}
        try:
            return auto.from_pretrained(str(self.folder), **common, **arguments)
        except Exception as error:  # the library raises many types for damaged files
            message = reason(error)
            if "trust_remote_code" in message:
                raise WeightsError(
                    f"'{self.spec.weights}' needs its own Python code, which ccl does not run by default.",
                    "Read the code. If you trust it, add ?trust_remote_code=true.",
                ) from error
            raise WeightsError(f"'{self.spec.weights}' cannot be loaded: {message[:300]}.") from error


def check_code(source: Source) -> None:
    """Check that the user trusts the model's Python code, and that the code is in the model's repository.

    Code of another repository is not pulled, pinned or covered by the fingerprint.

    Raises:
        WeightsError: one of the two conditions is not met.
    """
    if not is_code_trusted():
        raise WeightsError(
            f"'{source.spec.weights}' contains Python code, and a recipe alone cannot allow ccl to run it.",
            f"Read the code. If you trust it, give the teacher with --teacher, or set {VARIABLE}=1.",
        )
    for path in sorted(source.folder.glob("*config.json")):
        if match := _EXTERNAL_CODE.search(path.read_text(encoding="utf-8", errors="replace")):
            raise WeightsError(
                f"'{source.spec.weights}' uses code of another repository, '{match[1]}', which is not run.",
                "Copy the code into the model's folder and change auto_map, or choose another model.",
            )


class Encoder(nn.Module):
    """A network and its pooling.

    Args:
        model: Model of transformers, or the part of it that is used.
        family: How to call the model.
        pool: See :class:`Family`.
        dim: Embedding dimension.
        fused: Whether the model combines several segments of a long track (CLAP).
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
            mask: [B, tokens], 1 for tokens that are included in a mean; by default all.
            inputs: Inputs with the model's names, each [B, ...].
            returns: [B, dim] float32.
        """
        output = getattr(self.model, self.family.call)(**inputs, **self.family.arguments)
        if self.pool == "head":
            return _pooled(output)
        tokens: Tensor = output.last_hidden_state.float()
        if self.pool == "cls":
            return tokens[:, 0]
        if mask is None:
            return tokens[:, self.family.prefix :].mean(dim=1)
        weights = mask[..., None].float()
        return (tokens * weights).sum(dim=1) / weights.sum(dim=1)

    def embed_features(self, x: Tensor) -> Tensor:
        """Embed the output of an image, video or audio processor, ``[B, ...]`` to ``[B, dim]``."""
        inputs = {self._input_name: x}
        if self.fused:  # the audio is never longer than one segment of the model
            inputs["is_longer"] = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
        return self(**inputs)  # type: ignore[no-any-return]

    @property
    def _input_name(self) -> str:
        if self.family.call == "forward":
            return str(self.model.main_input_name)
        return "input_features" if self.family.call == "get_audio_features" else "pixel_values"


def _register_plain_tensors(model: nn.Module) -> None:
    """Register tensors in plain attributes (VideoMAE's positions) as buffers, so that they change device."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                delattr(module, name)
                module.register_buffer(name, value, persistent=False)


def load_encoder(source: Source, config: Any, modality: str, wanted: str) -> Encoder:
    """Load the network of a folder in float32.

    Args:
        source: Folder of the model.
        config: Configuration of the model.
        modality: "video", "image", "audio" or "text".
        wanted: Pooling requested by the user, or "".

    Raises:
        PluginError: the architecture is not supported, or does not have the requested pooling.
        WeightsError: tensors of the architecture are missing.
    """
    family = _family(source.spec, config, modality, wanted)
    classifier = _classifier(config) if modality != "text" else None
    pool = _pool(source.spec, family, wanted, classifier is not None)
    if classifier and pool == "head":
        model = _read(source, config, classifier, family, pool)
        dim = int(next(model.classifier.parameters()).shape[-1])
        model.classifier = nn.Identity()  # returns the classifier's input as logits
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
    """Return the configuration of one modality's part; the whole one for a model of a single modality."""
    name = "vision_config" if modality in ("image", "video") else f"{modality}_config"
    return getattr(config, name, config)


def _family(spec: Spec, config: Any, modality: str, wanted: str) -> Family:
    kind = config.model_type
    if family := family_of(modality, kind):
        registers = getattr(config, "num_register_tokens", 0)
        return replace(family, prefix=family.prefix + registers) if family.prefix else family
    others = [name for name, families in FAMILIES.items() if kind in families]
    if others:
        raise PluginError(
            f"'{spec.weights}' is a model of the modality {others[0]}.", f"Use {others[0]}:{spec.name}."
        )
    for pool in POOLS:
        if pool == wanted:
            return Family(pool)
    raise PluginError(
        f"ccl has no default {modality} pooling for the architecture '{kind}'.",
        f"Choose one with ?pool={'|'.join(POOLS)}. There are defaults for {', '.join(FAMILIES[modality])}.",
    )


def _pool(spec: Spec, family: Family, wanted: str, classifies: bool) -> Pool:
    """The requested pooling, else the classifier's input, else the family's default."""
    pools = tuple(pool for pool in POOLS if pool in family.pools or (classifies and pool == "head"))
    if not wanted:
        return "head" if classifies else family.pool
    for pool in pools:
        if pool == wanted:
            return pool
    raise PluginError(
        f"{spec.label}: '{spec.weights}' has no pooling '{wanted}'.", f"Use {' or '.join(pools)}."
    )


def _classifier(config: Any) -> Any | None:
    """The classification model of transformers that the checkpoint was saved from, if any."""
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
    """Load the model with its weights, and remove unused parts."""
    with fixed_seed():
        model, report = source.load(
            auto, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    # The library initialises a pooler at random if the checkpoint does not have one.
    unused = {*family.unused, *(() if pool == "head" else ("pooler",)), *_TRAINING_ONLY}
    missing = sorted(name for name in report["missing_keys"] if unused.isdisjoint(name.split(".")))
    if missing:
        raise WeightsError(
            f"'{source.spec.weights}' lacks weights of its architecture: {len(missing)} tensors are missing, "
            f"for example {missing[0]}.",
            "Choose another ?pool=, or download the model again.",
        )
    for owner in {model, model.base_model}:
        for name in unused:
            if isinstance(getattr(owner, name, None), nn.Module):
                setattr(owner, name, None)
    return model


def _pooled(output: Any) -> Tensor:
    pooled: Tensor | None = output.logits if "logits" in output else output.get("pooler_output")
    if pooled is None:
        raise PluginError("The model has no pooling of its own.", "Use ?pool=mean or ?pool=cls.")
    return pooled.float()
