"""The folder of a model: one that the user names, or a download of the Hugging Face hub."""

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
_OTHERS_CODE = re.compile(r'"([\w.-]+/[\w.-]+)--[\w.]+"')  # in an auto_map
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack")


class ModelFolder(NamedTuple):
    """A model on this machine.

    Attributes:
        path: Of the folder with config.json and the weights.
        name: For records: the folder's name, or owner/name and the commit (of files put there by hand, the
            revision that they stand for).
    """

    path: Path
    name: str


def locate_model(spec: Spec, revision: str) -> ModelFolder:
    """The folder that ``spec`` names after ``@``; the network is never asked.

    Raises:
        WeightsError: absent, incomplete, or nothing but pickles; the sentence says which command gets it.
    """
    named = Path(spec.weights or "").expanduser()
    if spec.weights and named.is_dir():
        model = ModelFolder(named, named.resolve().name)
    else:
        model = _downloaded(spec, revision)
    files = [path.name for path in model.path.iterdir()]
    if "config.json" not in files:
        raise WeightsError(
            f"'{model.path}' is no model of transformers: it has no config.json.", _again(spec)
        )
    _require_safetensors(files, spec)
    return model


def published_files(spec: Spec, revision: str, trust_remote_code: bool) -> list[WeightFile]:
    """What ``ccl teachers pull`` gets: weights as safetensors, and settings; of a folder nothing.

    Raises:
        WeightsError: no such repository, none that may be read, or nothing but pickles in it.
    """
    if not spec.weights:
        raise PluginError(f"{spec.label} needs a model.", f"Write {spec.label}@owner/name or @FOLDER.")
    if Path(spec.weights).expanduser().is_dir():
        return []
    if not _HUB_NAME.fullmatch(spec.weights):
        raise _absent(spec)
    if variable := forbidden():
        return _files_here(spec, revision, variable)
    repository = _ask_hub(spec, revision)
    names = [file.rfilename for file in repository.siblings]
    _require_safetensors(names, spec)
    wanted = (*_WEIGHTS, *_SETTINGS, *((_CODE,) if trust_remote_code else ()))
    licence = (repository.card_data or {}).get("license") or ""
    chosen = [file for file in repository.siblings if "/" not in file.rfilename and _is_any(file, wanted)]
    return [_weight_file(spec.weights, revision, file, str(licence)) for file in chosen]


def check_code(folder: Path, spec: Spec) -> None:
    """Refuse code that nobody has typed to trust, and code of another repository.

    The latter is neither pulled nor pinned, and no fingerprint covers it.

    Raises:
        WeightsError: it is either.
    """
    if not is_code_trusted():
        raise WeightsError(
            f"'{spec.weights}' would run Python code of its own, only because a recipe says so.",
            f"Read it; if you trust it, type the teacher after --teacher, or set {VARIABLE}=1.",
        )
    for path in sorted(folder.glob("*config.json")):
        if found := _OTHERS_CODE.search(path.read_text(encoding="utf-8", errors="replace")):
            raise WeightsError(
                f"'{spec.weights}' takes Python code from another repository, '{found[1]}': it is not run.",
                "Copy the code beside the model and name it there in auto_map, or choose another model.",
            )


def digest_settings(folder: Path) -> str:
    """Eight hex digits over the files beside the weights: architecture, processor, tokenizer, code."""
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
        raise _absent(spec)
    by_hand = cache_dir() / "weights" / _place(name, revision)
    if (by_hand / "config.json").is_file():
        return ModelFolder(by_hand, f"{name}@{revision}")
    try:
        path = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise _absent(spec) from error
    return ModelFolder(path, f"{name}@{path.name}")


def _files_here(spec: Spec, revision: str, variable: str) -> list[WeightFile]:
    """What an earlier download has left."""
    name = spec.weights or ""
    try:
        folder = _downloaded(spec, revision).path
    except WeightsError as error:
        raise WeightsError(
            f"Which files '{name}' has is not known: {variable} is set.", "Unset it and try again."
        ) from error
    return [
        WeightFile(f"{_place(name, revision)}/{path.name}", _address(name, revision, path.name))
        for path in sorted(folder.iterdir())
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in (*_WEIGHTS, *_SETTINGS, _CODE))
    ]


def _ask_hub(spec: Spec, revision: str) -> Any:
    from huggingface_hub import HfApi

    name = spec.weights or ""
    try:
        return HfApi().model_info(name, revision=revision, files_metadata=True)
    except Exception as error:  # the client lets the errors of whatever HTTP library it uses through
        unreachable = f"The Hugging Face hub cannot be asked for '{name}': {reason(error)[:200]}."
        raise WeightsError(*(refusal(name, error) or (unreachable, "Try again."))) from error


def _weight_file(name: str, revision: str, file: Any, licence: str) -> WeightFile:
    return WeightFile(
        f"{_place(name, revision)}/{file.rfilename}",
        _address(name, revision, file.rfilename),
        checksum=f"sha256:{file.lfs.sha256}" if file.lfs else None,
        size=file.size,
        licence=licence,
        note="Python code that is run" if fnmatch(file.rfilename, _CODE) else "",
    )


def _address(name: str, revision: str, file: str) -> str:
    return f"hf://{name}@{quote(revision, safe='')}/{file}"


def _place(name: str, revision: str) -> str:
    return name if revision == "main" else f"{name}@{quote(revision, safe='')}"


def _is_any(file: Any, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(file.rfilename, pattern) for pattern in patterns)


def _require_safetensors(files: list[str], spec: Spec) -> None:
    if any(fnmatch(name, pattern) for name in files for pattern in _WEIGHTS):
        return
    if any(fnmatch(name, pattern) for name in files for pattern in _PICKLES):
        raise WeightsError(
            f"'{spec.weights}' has its weights as pickles only, which are not read.",
            "Name a revision with model.safetensors (?revision=refs/pr/1), or save the model in that format.",
        )
    raise WeightsError(f"'{spec.weights}' has no weights: there is no model.safetensors.", _again(spec))


def _absent(spec: Spec) -> WeightsError:
    if not spec.weights:
        return WeightsError(f"{spec.label} needs a model.", f"Write {spec.label}@owner/name or @FOLDER.")
    hint = _again(spec) if _HUB_NAME.fullmatch(spec.weights) else "Name a folder, or owner/name, after '@'."
    return WeightsError(f"The model '{spec.weights}' is not on this machine.", hint)


def _again(spec: Spec) -> str:
    return f"Run `ccl teachers pull {shlex.quote(str(spec))}`, or correct what follows '@'."
