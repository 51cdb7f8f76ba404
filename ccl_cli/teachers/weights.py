"""Published weights: cached, downloaded with a checksum, and loaded without executing code."""

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
from ccl_cli.utils.download import (
    FAILURES,
    Progress,
    download,
    download_fault,
    download_json,
    offline_variable,
    reason,
)
from ccl_cli.utils.hub import refusal
from ccl_cli.utils.paths import cache_dir
from ccl_cli.utils.tensor_files import write_tensors

ZENODO = "https://zenodo.org/api/records/"
_HUB = "hf://"
_SUFFIXES = (".safetensors", ".pth", ".pyth", ".pt", ".bin")
_REPEATED = 8  # maximum ratio of tensor bytes to file size, for shared tensors
_WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state")


@dataclass(frozen=True)
class WeightFile:
    """A published weights file.

    Attributes:
        filename: Name in the cache.
        url: ``https://...``, or ``hf://owner/repository[@revision]/file`` on the Hugging Face Hub, with a
            percent-encoded revision.
        checksum: ``sha256:<hex>`` or ``md5:<hex>``, where a prefix of the digits is enough;
            ``zenodo:<record>`` to query that record at download time; None if no checksum is published.
        size: Size in bytes, or None.
        licence: Licence of the weights.
        note: Further information for users before the download.
    """

    filename: str
    url: str
    checksum: str | None = None
    size: int | None = None
    licence: str = ""
    note: str = ""

    @property
    def path(self) -> Path:
        """Path in the cache."""
        return cache_dir() / "weights" / self.filename

    @property
    def address(self) -> str:
        """URL for a browser."""
        if not self.url.startswith(_HUB):
            return self.url
        repository, name, revision = _hub_file(self)
        return f"https://huggingface.co/{repository}/resolve/{quote(revision, safe='')}/{name}"


def locate(spec: Spec, *files: WeightFile) -> Path:
    """Find the weights after ``@`` in ``spec``, else the first of ``files`` that is on this machine.

    Nothing is downloaded.

    Raises:
        WeightsError: no file exists; the message gives the expected path and the command to download it.
    """
    if spec.weights:
        path = Path(spec.weights).expanduser()
        if not path.is_file():
            raise WeightsError(
                f"There is no weights file '{path}' for {spec.label}.", "Correct the path after '@'."
            )
        return path
    for file in files:
        if found := _local(file):
            return found
    if not files:
        raise WeightsError(f"{spec} needs a weights file.", f"Use {spec.label}@FILE.")
    raise WeightsError(
        f"The weights of {spec} are not on this machine: {files[0].filename}.",
        f"Run `ccl teachers pull {shlex.quote(str(spec))}`, or put {files[0].address} at {files[0].path}.",
    )


def pull(file: WeightFile, progress: Progress | None = None) -> Path:
    """Download a file to the cache unless it exists; an interrupted download is resumed.

    Returns:
        The path of the file.

    Raises:
        WeightsError: downloads are disabled (``CCL_OFFLINE``, ``HF_HUB_OFFLINE``), the download failed, or
            the checksum does not match.
    """
    if path := _local(file):
        # The checksums of Zenodo are known at the download only.
        known = None if (file.checksum or "").startswith("zenodo:") else file.checksum
        if path == file.path and (wrong := download_fault(path, known, file.size)):
            raise WeightsError(
                f"'{path}' is not the published file: {wrong}.", "Delete it and run the command again."
            )
        return path
    if variable := offline_variable():
        raise _not_downloaded(file, f"{variable} is set", "Unset it and run the command again")
    if file.url.startswith(_HUB):
        return _pull_from_hub(file)
    checksum = _published_checksum(file)
    part = file.path.with_name(file.filename + ".part")
    try:
        download(file.url, part, progress)
        _check_download(file, part, checksum)
        return part.replace(file.path)
    except FAILURES as error:
        raise _not_downloaded(file, reason(error)) from error


def _local(file: WeightFile) -> Path | None:
    """The file in the cache, or in that of the Hub."""
    if file.path.is_file():
        return file.path
    if not file.url.startswith(_HUB):
        return None
    from huggingface_hub import try_to_load_from_cache

    repository, name, revision = _hub_file(file)
    path = try_to_load_from_cache(repository, name, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _pull_from_hub(file: WeightFile) -> Path:
    from huggingface_hub import hf_hub_download

    repository, name, revision = _hub_file(file)
    try:
        path = Path(hf_hub_download(repository, name, revision=revision))
    except Exception as error:  # the client also raises errors of its HTTP library
        if refused := refusal(repository, error):
            raise WeightsError(*refused) from error
        raise _not_downloaded(file, " ".join(reason(error).split()[:30])) from error
    stored = path.resolve()  # the client names the file after its sha256 without verifying it
    _check_download(file, stored, f"sha256:{stored.name}" if len(stored.name) == 64 else file.checksum)
    return path


def _hub_file(file: WeightFile) -> tuple[str, str, str]:
    """Split a URL into repository, file name and revision."""
    owner, repository, name = file.url.removeprefix(_HUB).split("/", 2)
    repository, _, revision = repository.partition("@")
    return f"{owner}/{repository}", name, unquote(revision) or "main"


def _published_checksum(file: WeightFile) -> str | None:
    if not file.checksum or not file.checksum.startswith("zenodo:"):
        return file.checksum
    record = ZENODO + file.checksum.removeprefix("zenodo:")
    try:
        entries = {entry["key"]: entry["checksum"] for entry in download_json(record)["files"]}
        return str(entries[file.filename])
    except (*FAILURES, ValueError, LookupError, TypeError) as error:
        why = f"its checksum is not available from {record} ({reason(error)})"
        raise _not_downloaded(file, why) from error


def _check_download(file: WeightFile, path: Path, checksum: str | None) -> None:
    if wrong := download_fault(path, checksum, file.size):
        path.unlink()
        raise WeightsError(
            f"The download of {file.filename} from {file.address} is not the published file: {wrong}.",
            "It was deleted. Try again later.",
        )


def _not_downloaded(file: WeightFile, why: str, step: str = "Run the command again") -> WeightsError:
    return WeightsError(
        f"{file.filename} was not downloaded: {why}.",
        f"{step}, or download {file.address} elsewhere and put it at {file.path}.",
    )


def load_state(path: Path) -> dict[str, Tensor]:
    """Load the tensors of a ``.safetensors``, ``.pth``, ``.pyth``, ``.pt`` or ``.bin`` file to the CPU.

    Raises:
        WeightsError: the file is damaged, or a pickle that contains more than tensors.
    """
    readable = as_safetensors(path)
    try:
        return load_file(readable)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def as_safetensors(path: Path) -> Path:
    """Return the file, or its cached safetensors copy, which is named after a hash of the source.

    Only plain tensors are unpickled; other objects are refused without executing code.

    Raises:
        WeightsError: see :func:`load_state`.
        OSError: the copy cannot be written.
    """
    if path.suffix == ".safetensors":
        return path
    if path.suffix not in _SUFFIXES:
        raise WeightsError(
            f"'{path}' is not a weights file.",
            "Supported are .safetensors, .pth, .pyth, .pt and .bin files.",
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


def _unpickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about unsupported protocols, which also raise an error
            # Only zip archives can be memory-mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"'{path}' is refused: it contains more than tensors, and loading it could execute code.",
            "Use a .safetensors file, or a file with only the state dict. A damaged file cannot be read as "
            "weights either: download it again.",
        ) from error
    except (RuntimeError, ValueError, EOFError, LookupError, AttributeError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    items = content.items() if isinstance(content, Mapping) else ()
    state = {str(name): value for name, value in items if isinstance(value, Tensor)}
    if not state or any(x.layout is not torch.strided or x.is_quantized or x.is_meta for x in state.values()):
        raise WeightsError(
            f"'{path}' contains no tensors, or sparse or quantised ones.",
            "A weights file must contain a state dict of names and dense tensors.",
        )
    if all(name.startswith("module.") for name in state):  # saved from DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    # A small file can declare a tensor of any size.
    if sum(value.nbytes for value in state.values()) > _REPEATED * path.stat().st_size:
        raise _damaged(path, ValueError("its tensors claim to be larger than the file"))
    # Tied tensors share storage, which safetensors does not allow.
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"'{path}' cannot be read as weights: {reason(error)[:200]}.", "Download the file again."
    )
