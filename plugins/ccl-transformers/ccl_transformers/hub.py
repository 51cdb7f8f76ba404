"""Locate the folder of a model: a folder of the user, or a download from the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ccl_cli.config.spec import Spec
from ccl_cli.config.trust import VARIABLE, is_code_trusted
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.teachers.weights import WeightFile
from ccl_cli.utils.download import forbidden, reason
from ccl_cli.utils.hub import refusal
from ccl_cli.utils.paths import cache_dir

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
_SETTINGS = ("*.json", "*.txt", "*.model")
_CODE = "*.py"
_EXTERNAL_CODE = re.compile(r'"([\w.-]+/[\w.-]+)--[\w.]+"')  # code of another repository, in an auto_map
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack")


class ModelFolder(NamedTuple):
    """A model on this machine.

    Attributes:
        path: Folder with config.json and the weights.
        name: Name for the records of a run: the folder's name, or owner/name@commit (owner/name@revision for
            files copied to ccl's cache by hand).
    """

    path: Path
    name: str


def locate_model(spec: Spec, revision: str) -> ModelFolder:
    """Find the model after ``@`` in ``spec`` on this machine, without using the network.

    Raises:
        WeightsError: the model is missing or incomplete, or has only pickles; the hint gives the command that
            downloads it.
    """
    named = Path(spec.weights or "").expanduser()
    if spec.weights and named.is_dir():
        model = ModelFolder(named, named.resolve().name)
    else:
        model = _downloaded(spec, revision)
    files = [path.name for path in model.path.iterdir()]
    if "config.json" not in files:
        raise WeightsError(
            f"'{model.path}' is not a model of transformers: it has no config.json.", _hint(spec)
        )
    _require_safetensors(files, spec)
    return model


def published_files(spec: Spec, revision: str, trust_remote_code: bool) -> list[WeightFile]:
    """Files that ``ccl teachers pull`` downloads: safetensors and settings; none for a folder.

    Raises:
        WeightsError: the repository does not exist, is not accessible, or has only pickles.
    """
    if not spec.weights:
        raise PluginError(f"{spec.label} needs a model.", f"Use {spec.label}@owner/name or @FOLDER.")
    if Path(spec.weights).expanduser().is_dir():
        return []
    if not _HUB_NAME.fullmatch(spec.weights):
        raise _missing(spec)
    if variable := forbidden():
        return _downloaded_files(spec, revision, variable)
    repository = _ask_hub(spec, revision)
    names = [file.rfilename for file in repository.siblings]
    _require_safetensors(names, spec)
    wanted = (*_WEIGHTS, *_SETTINGS, *((_CODE,) if trust_remote_code else ()))
    licence = (repository.card_data or {}).get("license") or ""
    chosen = [file for file in repository.siblings if "/" not in file.rfilename and _is_any(file, wanted)]
    return [_weight_file(spec.weights, revision, file, str(licence)) for file in chosen]


def check_code(folder: Path, spec: Spec) -> None:
    """Check that the user trusts the model's Python code, and that the code is in the model's repository.

    Code of another repository is not pulled, pinned or covered by the fingerprint.

    Raises:
        WeightsError: one of the two conditions is not met.
    """
    if not is_code_trusted():
        raise WeightsError(
            f"'{spec.weights}' contains Python code, and a recipe alone cannot allow ccl to run it.",
            f"Read the code. If you trust it, give the teacher with --teacher, or set {VARIABLE}=1.",
        )
    for path in sorted(folder.glob("*config.json")):
        if match := _EXTERNAL_CODE.search(path.read_text(encoding="utf-8", errors="replace")):
            raise WeightsError(
                f"'{spec.weights}' uses Python code of another repository, '{match[1]}', which ccl does not "
                "run.",
                "Copy the code into the model's folder and change auto_map, or choose another model.",
            )


def digest_settings(folder: Path) -> str:
    """Hash of architecture, processor, tokenizer and code, 8 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".txt", ".model", ".py"):
            digest.update(f"{path.name}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _downloaded(spec: Spec, revision: str) -> ModelFolder:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    name = spec.weights or ""
    if not _HUB_NAME.fullmatch(name):
        raise _missing(spec)
    by_hand = cache_dir() / "weights" / _cache_name(name, revision)
    if (by_hand / "config.json").is_file():
        return ModelFolder(by_hand, f"{name}@{revision}")
    try:
        path = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise _missing(spec) from error
    return ModelFolder(path, f"{name}@{path.name}")


def _downloaded_files(spec: Spec, revision: str, variable: str) -> list[WeightFile]:
    """Files of an earlier download, for offline mode."""
    name = spec.weights or ""
    try:
        folder = _downloaded(spec, revision).path
    except WeightsError as error:
        raise WeightsError(
            f"The files of '{name}' cannot be listed: {variable} is set.", "Unset it and try again."
        ) from error
    return [
        WeightFile(f"{_cache_name(name, revision)}/{path.name}", _address(name, revision, path.name))
        for path in sorted(folder.iterdir())
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in (*_WEIGHTS, *_SETTINGS, _CODE))
    ]


def _ask_hub(spec: Spec, revision: str) -> Any:
    from huggingface_hub import HfApi

    name = spec.weights or ""
    try:
        return HfApi().model_info(name, revision=revision, files_metadata=True)
    except Exception as error:  # the client also raises errors of its HTTP library
        unreachable = f"The Hugging Face Hub did not answer for '{name}': {reason(error)[:200]}."
        raise WeightsError(*(refusal(name, error) or (unreachable, "Try again."))) from error


def _weight_file(name: str, revision: str, file: Any, licence: str) -> WeightFile:
    return WeightFile(
        f"{_cache_name(name, revision)}/{file.rfilename}",
        _address(name, revision, file.rfilename),
        checksum=f"sha256:{file.lfs.sha256}" if file.lfs else None,
        size=file.size,
        licence=licence,
        note="Python code, which ccl will run" if fnmatch(file.rfilename, _CODE) else "",
    )


def _address(name: str, revision: str, file: str) -> str:
    return f"hf://{name}@{quote(revision, safe='')}/{file}"


def _cache_name(name: str, revision: str) -> str:
    return name if revision == "main" else f"{name}@{quote(revision, safe='')}"


def _is_any(file: Any, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(file.rfilename, pattern) for pattern in patterns)


def _require_safetensors(files: list[str], spec: Spec) -> None:
    if any(fnmatch(name, pattern) for name in files for pattern in _WEIGHTS):
        return
    if any(fnmatch(name, pattern) for name in files for pattern in _PICKLES):
        raise WeightsError(
            f"'{spec.weights}' has its weights only as pickles, which ccl does not read.",
            "Use a revision with model.safetensors (?revision=refs/pr/1), or save the model in that format.",
        )
    raise WeightsError(f"'{spec.weights}' has no weights: there is no model.safetensors.", _hint(spec))


def _missing(spec: Spec) -> WeightsError:
    if not spec.weights:
        return WeightsError(f"{spec.label} needs a model.", f"Use {spec.label}@owner/name or @FOLDER.")
    hint = _hint(spec) if _HUB_NAME.fullmatch(spec.weights) else "Give a folder or owner/name after '@'."
    return WeightsError(f"The model '{spec.weights}' is not on this machine.", hint)


def _hint(spec: Spec) -> str:
    return f"Run `ccl teachers pull {shlex.quote(str(spec))}`, or correct the name after '@'."
