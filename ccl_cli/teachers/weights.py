"""Published weights: found in the cache, downloaded with a checksum, read without running what is in them."""

from __future__ import annotations

import hashlib
import pickle
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ccl_cli.config.spec import Spec
from ccl_cli.errors import WeightsError
from ccl_cli.utils.download import FAILURES, Progress, download, fault, forbidden, read_json, reason
from ccl_cli.utils.hub import refusal
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.tensor_files import write_tensors

ZENODO = "https://zenodo.org/api/records/"
_HUB = "hf://"
_SUFFIXES = (".safetensors", ".pth", ".pyth", ".pt", ".bin")
_REPEATED = 8  # times that a file may hold each tensor
_WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state")


@dataclass(frozen=True)
class WeightFile:
    """A file of weights that somebody publishes.

    Attributes:
        filename: Its name in the cache.
        url: ``https://...``, or ``hf://owner/repository[@revision]/file`` on the Hugging Face hub; the
            revision is percent-encoded.
        checksum: ``sha256:<hex>`` or ``md5:<hex>``, of which the first digits are enough; ``zenodo:<record>``
            to ask that record at the time of the download; None where nobody publishes one.
        size: In bytes, or None.
        licence: Of the weights.
        note: What else a user should know before downloading.
    """

    filename: str
    url: str
    checksum: str | None = None
    size: int | None = None
    licence: str = ""
    note: str = ""

    @property
    def path(self) -> Path:
        """Where it belongs in the cache."""
        return cache_dir() / "weights" / self.filename

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        if not self.url.startswith(_HUB):
            return self.url
        repository, name, revision = _hub_file(self)
        return f"https://huggingface.co/{repository}/resolve/{quote(revision, safe='')}/{name}"


def locate(spec: Spec, *files: WeightFile) -> Path:
    """The weights that ``spec`` names after ``@``, else the first of ``files`` that is on this machine.

    Nothing is downloaded.

    Raises:
        WeightsError: absent; the sentence says which file to put where and which command gets it.
    """
    if spec.weights:
        return _named(spec)
    for file in files:
        if path := file.path if file.path.is_file() else _in_hub_cache(file):
            return path
    plain = Spec(spec.kind, spec.name, None, spec.options)
    if turned := _turned_round(spec):
        raise WeightsError(
            f"{plain} names no file of weights: what follows '?' are options.",
            f"The file comes first: {shlex.quote(str(turned))}.",
        )
    if not files:
        raise WeightsError(f"{plain} needs a file of weights.", f"Write {spec.label}@FILE.")
    raise WeightsError(
        f"The weights of {plain} are not on this machine: {files[0].filename}.",
        f"Run `ccl teachers pull {shlex.quote(str(plain))}`, or put {files[0].address} at {files[0].path}.",
    )


def pull(file: WeightFile, progress: Progress | None = None) -> Path:
    """Download a file into the cache, unless it is there; an interrupted download goes on where it stopped.

    Returns:
        Where it is.

    Raises:
        WeightsError: no network wanted (``CCL_OFFLINE``, ``HF_HUB_OFFLINE``), none to be had, or other bytes
            than the published ones.
    """
    if file.url.startswith(_HUB) and not file.path.is_file():
        return _in_hub_cache(file) or _pull_from_hub(file)
    if file.path.is_file():
        _check_cached(file)
        return file.path
    _refuse_offline(file)
    checksum = _published_checksum(file)
    part = file.path.with_name(file.filename + ".part")
    try:
        download(file.url, part, progress)
        if wrong := fault(part, checksum, file.size):
            part.unlink()
            raise WeightsError(f"What {file.url} sends is not {file.filename}: {wrong}; it was thrown away.")
        return part.replace(file.path)
    except FAILURES as error:
        raise _not_downloaded(file, reason(error)) from error


def load_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors``, ``.pth``, ``.pyth``, ``.pt`` or ``.bin`` file, on the CPU.

    Raises:
        WeightsError: damaged, or a pickle that holds more than tensors.
    """
    readable = as_safetensors(path)
    try:
        return load_file(readable)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def as_safetensors(path: Path) -> Path:
    """The file itself, or its copy in safetensors format, made once and named after what the source contains.

    Only plain tensors are unpickled; anything else in a pickle is refused without being run.

    Raises:
        WeightsError: see :func:`load_state`.
        OSError: the disk refuses the copy.
    """
    if path.suffix == ".safetensors":
        return path
    if path.suffix not in _SUFFIXES:
        raise WeightsError(
            f"'{path}' is no weights file.",
            "Weights are read from .safetensors, .pth, .pyth, .pt and .bin files.",
        )
    try:
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        target = cache_dir() / "converted" / f"{digest}.safetensors"
        if target.is_file():
            return target
        state = _tensors(_unpickle(path), path)
    except OSError as error:
        raise _damaged(path, error) from error
    write_tensors(target, state)
    return target


# -- finding and downloading


def _named(spec: Spec) -> Path:
    path = Path(str(spec.weights)).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"There is no file '{path}' with weights for {spec.label}.", "Correct what follows '@'."
        )
    return path


def _turned_round(spec: Spec) -> Spec | None:
    """What was meant by ``name?key=value@weights``."""
    for key, value in spec.options.items():
        value, mark, weights = str(value).partition("@")
        if mark and weights.endswith(_SUFFIXES):
            return Spec(spec.kind, spec.name, weights, {**spec.options, key: value})
    return None


def _published_checksum(file: WeightFile) -> str | None:
    if not file.checksum or not file.checksum.startswith("zenodo:"):
        return file.checksum
    record = ZENODO + file.checksum.removeprefix("zenodo:")
    try:
        entries = {entry["key"]: entry["checksum"] for entry in read_json(record)["files"]}
        return str(entries[file.filename])
    except (*FAILURES, ValueError, LookupError, TypeError) as error:
        raise _not_downloaded(file, f"its checksum cannot be had from {record} ({reason(error)})") from error


def _check_cached(file: WeightFile) -> None:
    checksum = None if (file.checksum or "").startswith("zenodo:") else file.checksum
    if wrong := fault(file.path, checksum, file.size):
        raise WeightsError(
            f"'{file.path}' is not the published file: {wrong}.", "Delete it and run the command again."
        )


def _refuse_offline(file: WeightFile) -> None:
    if variable := forbidden():
        raise _not_downloaded(file, f"{variable} is set", "Unset it and run the command again")


def _not_downloaded(file: WeightFile, why: str, step: str = "Run the command again") -> WeightsError:
    return WeightsError(
        f"{file.filename} was not downloaded: {why}.",
        f"{step}, or download {file.address} elsewhere and put it at {file.path}.",
    )


def _hub_file(file: WeightFile) -> tuple[str, str, str]:
    """Repository, name of the file and revision."""
    owner, repository, name = file.url.removeprefix(_HUB).split("/", 2)
    repository, _, revision = repository.partition("@")
    return f"{owner}/{repository}", name, unquote(revision) or "main"


def _in_hub_cache(file: WeightFile) -> Path | None:
    if not file.url.startswith(_HUB):
        return None
    from huggingface_hub import try_to_load_from_cache

    repository, name, revision = _hub_file(file)
    path = try_to_load_from_cache(repository, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _pull_from_hub(file: WeightFile) -> Path:
    from huggingface_hub import hf_hub_download

    _refuse_offline(file)
    repository, name, revision = _hub_file(file)
    try:
        path = Path(hf_hub_download(repository, name, revision=revision))
    except Exception as error:  # the client lets the errors of whatever HTTP library it uses through
        if refused := refusal(repository, error):
            raise WeightsError(*refused) from error
        raise _not_downloaded(file, " ".join(reason(error).split()[:30])) from error
    stored = path.resolve()  # the client names it after its sha256, but does not check that
    checksum = f"sha256:{stored.name}" if len(stored.name) == 64 else file.checksum
    if wrong := fault(stored, checksum, file.size):
        stored.unlink()
        raise WeightsError(f"What {file.address} sends is not {file.filename}: {wrong}; it was thrown away.")
    return path


# -- reading


def _unpickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on protocols that it may not read: then it raises as well
            # Only zip archives can be mapped; older files are read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise _damaged(path, ValueError("torch.save with its defaults did not write it")) from error
        raise WeightsError(
            f"'{path}' is refused: it holds more than tensors, and reading that could run somebody's code.",
            "Ask for a .safetensors file, or for the state dict alone.",
        ) from error
    except (RuntimeError, ValueError, EOFError, LookupError, AttributeError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    items = content.items() if isinstance(content, Mapping) else ()
    state = {str(name): value for name, value in items if isinstance(value, Tensor)}
    if not state:
        raise WeightsError(f"'{path}' holds no tensors.", "Weights are a state dict: names and tensors.")
    if all(name.startswith("module.") for name in state):  # written from inside DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    if not all(map(_is_plain, state.values())):
        raise WeightsError(f"'{path}' holds sparse or quantised tensors.", "Save it with plain ones.")
    # A few bytes can pose as a tensor of any size.
    if sum(value.nbytes for value in state.values()) > _REPEATED * path.stat().st_size:
        raise _damaged(path, ValueError("its tensors claim to be larger than the file"))
    # Tied tensors share storage, which the format does not allow.
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def _is_plain(value: Tensor) -> bool:
    return value.layout is torch.strided and not (value.is_quantized or value.is_meta)


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"'{path}' cannot be read as weights: {reason(error)[:200]}.", "Get the file again.")
