"""``image:<any timm model>``: an image network of timm, applied to one frame of the clip.

``image:resnet34`` is the paper's image teacher, with torchvision's ImageNet weights (``resnet34.tv_in1k``).
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from ccl_cli.config.recipe import Clip
from ccl_cli.config.spec import Spec
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers.classifier import ClassifierTeacher, fixed_seed
from ccl_cli.teachers.fitted import as_fitted
from ccl_cli.teachers.weights import WeightFile, as_safetensors, locate
from ccl_cli.utils.download import reason
from ccl_plugins.picture import Picture, Triple

# timm's default weights for the name without a tag are not the paper's.
_PAPER = {"resnet34": "resnet34.tv_in1k"}
_HASHED = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|bin|safetensors)$")
_OURS = ("weights", "input", "frame", "mean", "std", "size", "crop_pct", "interpolation")


class TimmImage(ClassifierTeacher):
    """Image teacher whose embedding is the input of a timm network's classifier.

    Options: ``input=student_clip``, ``frame=shared``, ``size``, ``crop_pct``, ``interpolation``, ``mean`` and
    ``std`` (one or three numbers), ``weights`` (``random``, or the name of the data set that
    `ccl teachers fit` used). Other options are passed to the network's constructor (``pad_type=same``).
    """

    modality = "image"
    network: Any  # timm's networks have a common interface, but no common base class
    mean: Tensor
    std: Tensor

    def __init__(
        self, network: Any, preprocess: Picture, variant: str, classes: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.network, self.preprocess, self.variant = network, preprocess, variant
        self.dim = int(getattr(network, "head_hidden_size", None) or network.num_features)
        subset = infer_imagenet_subset({"num_classes": network.num_classes})
        self.classes = classes or (_class_names(subset) if subset else None)
        for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
            scaled = 255 * torch.tensor(values).view(3, 1, 1)
            self.register_buffer(name, scaled, persistent=False)

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Build the teacher from ``image:<timm model>[.<tag>][@weights][?option=value&...]``."""
        spec, classes = as_fitted(spec)
        name, published = _published(spec)
        preprocess = _picture(spec, published)
        random = _is_random(spec)
        path = None if random else as_safetensors(locate(spec, *_files(name, published)))
        options = {key: value for key, value in spec.options.items() if key not in _OURS}
        size = {"img_size": preprocess.size} if published.fixed_input_size else {}
        with fixed_seed():
            network = _network(spec, name, published, path, size | options)
        # A tag denotes published weights, so it is dropped for a file of the user.
        weights = f"{name.partition('.')[0]}@{Path(spec.weights).name}" if spec.weights else name
        extra = "&".join(f"{key}={value}" for key, value in sorted(options.items()))
        teacher = cls(network, preprocess, f"{weights}?{extra}" if extra else weights, classes)
        teacher.random_weights = random
        return teacher.freeze()

    @classmethod
    def to_fit(cls, spec: Spec, classes: Sequence[str]) -> Self:
        """Build the teacher with a new classifier for ``ccl teachers fit``."""
        teacher = cls.from_spec(spec)
        teacher.network.reset_classifier(len(classes))
        teacher.classes = tuple(classes)
        return teacher

    @classmethod
    def weight_files(cls, spec: Spec) -> Sequence[WeightFile]:
        """The weights file for ``spec``: at a URL with checksum, else on the Hub, else at another URL."""
        spec, _ = as_fitted(spec)
        name, published = _published(spec)
        return () if spec.weights or _is_random(spec) else _files(name, published)[:1]

    @property
    def network_with_weights(self) -> nn.Module:
        """The network of timm."""
        network: nn.Module = self.network
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Embed images.

        Shapes:
            x: [B, 3, height, width] uint8.
            returns: [B, dim] float32.
        """
        features = self.network.forward_features(self._normalised(x))
        embedding: Tensor = self.network.forward_head(features, pre_logits=True).float()
        return embedding

    def forward_stages(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the embedding [B, dim] and, if timm supports it, the outputs of the stages [B, C, H, W]."""
        if not hasattr(self.network, "forward_intermediates"):
            return self(x), ()
        features, stages = self.network.forward_intermediates(self._normalised(x))
        return self.network.forward_head(features, pre_logits=True).float(), tuple(stages)

    def class_scores(self, x: Tensor) -> Tensor:
        """Logits of ``classes``, ``[B, len(classes)]``."""
        scores: Tensor = self.network(self._normalised(x)).float()
        return scores

    def _normalised(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


@functools.cache
def _class_names(subset: str) -> tuple[str, ...]:
    return tuple(ImageNetInfo(subset).label_descriptions())


def _published(spec: Spec) -> tuple[str, PretrainedCfg]:
    """Name with tag, and timm's configuration of the pretrained weights."""
    name = _PAPER.get(spec.name, spec.name)
    with suppress(RuntimeError):  # unknown tag
        if timm.is_model(name) and (published := get_pretrained_cfg(name)):
            tagged = "." in name or not published.tag
            return (name if tagged else f"{name}.{published.tag}"), published
    near = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), cutoff=0.5)
    suggestion = f"Did you mean {' or '.join(f'image:{other}' for other in near)}? " if near else ""
    raise PluginError(
        f"timm has no image network '{name}'.", f"{suggestion}timm.list_models() lists all networks."
    )


def _files(name: str, published: PretrainedCfg) -> list[WeightFile]:
    """Published files in order of preference: a URL with checksum, the Hugging Face Hub, another URL."""
    licence = published.license or ""
    files = []
    if published.hf_hub_id:
        original = published.hf_hub_filename or "model.safetensors"
        address = f"hf://{published.hf_hub_id}/{original}"
        files.append(WeightFile(name + Path(original).suffix, address, licence=licence))
    if published.url and isinstance(published.url, str) and not published.custom_load:
        hashed = _HASHED.search(published.url)
        checksum = f"sha256:{hashed[1]}" if hashed else None
        file = WeightFile(published.url.rpartition("/")[2], published.url, checksum, licence=licence)
        files.insert(0 if hashed else len(files), file)
    if not files:
        raise WeightsError(f"There are no published weights for image:{name}.", "Give a file after '@'.")
    return files


def _is_random(spec: Spec) -> bool:
    weights = spec.options.get("weights")
    if weights not in (None, "random") or (weights and spec.weights):
        raise PluginError(f"{spec.label}: use either weights=random or a weights file after '@'.")
    return weights == "random"


def _picture(spec: Spec, published: PretrainedCfg) -> Picture:
    """The preprocessing of the network or of the student's clip, modified by the options."""
    options, clip = spec.options, Clip()
    source = _one_of(spec, "input", "frames", "student_clip")
    size, mean, std = published.input_size[1:], published.mean, published.std
    if source == "student_clip":
        size, mean, std = (clip.size, clip.size), clip.mean, clip.std
    try:
        picture = Picture(
            (int(options["size"]),) * 2 if "size" in options else size,
            float(options.get("crop_pct", published.crop_pct)),
            InterpolationMode(options.get("interpolation", published.interpolation)).value,
            published.crop_mode == "squash",
            _triple(options.get("mean", mean)),
            _triple(options.get("std", std)),
            source,
            _one_of(spec, "frame", "random", "shared"),
        )
    except (TypeError, ValueError) as error:
        raise PluginError(f"{spec}: an option is invalid: {error}.") from error
    if min(picture.size) < 1 or not 0 < picture.crop_pct <= 1 or min(picture.std) <= 0:
        raise PluginError(f"{spec}: size and std must be positive, and crop_pct between 0 and 1.")
    return picture


def _one_of(spec: Spec, option: str, *allowed: str) -> Any:
    value = spec.options.get(option, allowed[0])
    if value not in allowed:
        raise PluginError(f"{spec.label}: {option} must be {' or '.join(allowed)}, not '{value}'.")
    return value


def _triple(value: Any) -> Triple:
    parts = value.split(",") if isinstance(value, str) else value
    numbers = [float(number) for number in (parts if isinstance(parts, Sequence) else [parts])]
    if len(numbers) not in (1, 3):
        raise ValueError(f"'{value}' must be one or three numbers")
    red, green, blue = numbers * (3 // len(numbers))
    return red, green, blue


def _network(
    spec: Spec, name: str, published: PretrainedCfg, path: Path | None, options: dict[str, Any]
) -> nn.Module:
    try:
        if path is None:
            network: nn.Module = timm.create_model(name, **options)
            return network
        return _loaded(name, published, path, options)
    except (RuntimeError, SafetensorError) as error:
        raise WeightsError(f"'{path}' does not fit {spec.label}: {reason(error)[:200]}...") from error
    except (TypeError, ValueError, AssertionError, KeyError, AttributeError) as error:
        raise PluginError(
            f"timm cannot build {spec}: {error}.", f"Use only options that timm has for {name}."
        ) from error


def _loaded(name: str, published: PretrainedCfg, path: Path, options: dict[str, Any]) -> nn.Module:
    """Load the file into the network, with the classifier of the file."""
    fault = RuntimeError("no weights")
    for head in _classifier_settings(published, path):
        overlay = {"file": str(path), **head}
        try:
            network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
        except RuntimeError as error:
            fault = error
        else:
            return _with_weights_of(network, path)
    raise fault


def _classifier_settings(published: PretrainedCfg, path: Path) -> Iterator[dict[str, Any]]:
    """Settings of timm for the file's classifier, most likely first: known size, absent, or another name."""
    names = published.classifier
    name = names if isinstance(names, str) or not names else names[0]
    with safe_open(path, "pt") as file:
        if name and f"{name}.weight" in file.keys():  # noqa: SIM118  (not a mapping)
            yield {"num_classes": file.get_slice(f"{name}.weight").get_shape()[0]}
            return
    if name:
        yield {"num_classes": 0, "classifier": None}
    yield {}


def _with_weights_of(network: nn.Module, path: Path) -> nn.Module:
    """Check that a network has the tensors of a file: for some networks, timm ignores missing ones."""
    with safe_open(path, "pt") as file:
        stored = {_signature(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    own = [_signature(parameter) for parameter in network.parameters()]
    used = sum(signature in stored for signature in own)
    if 2 * used < len(own):
        raise RuntimeError(f"only {used} of {len(own)} tensors come from the file")
    return network


def _signature(tensor: Tensor) -> tuple[int, float]:
    """Identify a tensor independently of its name and shape."""
    return tensor.numel(), tensor.detach().double().sum().item()
