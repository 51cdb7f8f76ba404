"""Models that consist of a folder of files: on this machine, or on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ccl_cli.config.spec import Spec
from ccl_cli.errors import WeightsError
from ccl_cli.teachers.weights import WeightFile
from ccl_cli.utils.download import offline_variable, reason
from ccl_cli.utils.hub import refusal
from ccl_cli.utils.paths import cache_dir

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
_SETTINGS = ("*.json", "*.txt", "*.model")
_HASHED = (".json", ".txt", ".model", ".py")


@dataclass(frozen=True)
class HubModel:
    """A model of the Hub, or a folder of the user.

    Attributes:
        spec: The teacher, for messages.
        name: Path of a folder, or owner/name.
        marker: File that every such model has.
        revision: Branch, tag or commit.
        extra: Patterns of files to download besides safetensors and settings.
    """

    spec: Spec
    name: str
    marker: str = "config.json"
    revision: str = "main"
    extra: tuple[str, ...] = ()

    def locate(self) -> tuple[Path, str]:
        """Find the model on this machine, without using the network.

        Returns:
            Its folder, and a name for the records: the folder's, or owner/name@commit (owner/name@revision
            for files copied to ccl's cache by hand).

        Raises:
            WeightsError: the model is missing or incomplete, or has only pickles; the hint gives the command
                that downloads it.
        """
        own, by_hand = Path(self.name).expanduser(), cache_dir() / "weights" / self._cache_name
        if self.name and own.is_dir():
            folder, label = own, own.resolve().name
        elif self._is_on_hub and (by_hand / self.marker).is_file():
            folder, label = by_hand, f"{self.name}@{self.revision}"
        elif self._is_on_hub and (cached := self._in_hub_cache()):
            folder, label = cached, f"{self.name}@{cached.name}"
        else:
            raise self._missing()
        files = [path.name for path in folder.iterdir()]
        if self.marker not in files:
            raise WeightsError(f"'{folder}' is not such a model: it has no {self.marker}.", self._hint())
        self._require_safetensors(files)
        return folder, label

    def files(self) -> list[WeightFile]:
        """Files that ``ccl teachers pull`` downloads; none for a folder of the user.

        Raises:
            WeightsError: the repository does not exist, is not accessible, or has only pickles.
        """
        if self.name and Path(self.name).expanduser().is_dir():
            return []
        if not self._is_on_hub:
            raise self._missing()
        if offline_variable():
            return [self._file(path.name) for path in sorted(self.locate()[0].iterdir()) if path.is_file()]
        repository = self._ask_hub()
        self._require_safetensors(file.rfilename for file in repository.siblings)
        licence = str((repository.card_data or {}).get("license") or "")
        return [
            self._file(file.rfilename, file.lfs and file.lfs.sha256, file.size, licence)
            for file in repository.siblings
            if _is_any(file.rfilename, (*_WEIGHTS, *_SETTINGS, *self.extra))
        ]

    @property
    def _is_on_hub(self) -> bool:
        return _HUB_NAME.fullmatch(self.name) is not None

    @property
    def _cache_name(self) -> str:
        return self.name if self.revision == "main" else f"{self.name}@{quote(self.revision, safe='')}"

    def _in_hub_cache(self) -> Path | None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.name, revision=self.revision, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            return None

    def _ask_hub(self) -> Any:
        from huggingface_hub import HfApi

        try:
            return HfApi().model_info(self.name, revision=self.revision, files_metadata=True)
        except Exception as error:  # the client also raises errors of its HTTP library
            unreachable = f"The Hugging Face Hub did not answer for '{self.name}': {reason(error)[:200]}."
            raise WeightsError(*(refusal(self.name, error) or (unreachable, "Try again."))) from error

    def _file(
        self, file: str, sha256: str | None = None, size: int | None = None, licence: str = ""
    ) -> WeightFile:
        return WeightFile(
            f"{self._cache_name}/{file}",
            f"hf://{self.name}@{quote(self.revision, safe='')}/{file}",
            checksum=f"sha256:{sha256}" if sha256 else None,
            size=size,
            licence=licence,
            note="Python code, which ccl will run" if file.endswith(".py") else "",
        )

    def _require_safetensors(self, files: Iterable[str]) -> None:
        if not any(_is_any(file, _WEIGHTS) for file in files):
            raise WeightsError(
                f"'{self.name}' has no model.safetensors, and ccl does not read pickles.",
                f"{self._pull_command()}, or use a model or revision with that file.",
            )

    def _missing(self) -> WeightsError:
        if not self.name:
            return WeightsError(
                f"{self.spec.label} needs a model.", f"Use {self.spec.label}@owner/name or @FOLDER."
            )
        return WeightsError(f"The model '{self.name}' is not on this machine.", self._hint())

    def _hint(self) -> str:
        if not self._is_on_hub:
            return "Give a folder or owner/name after '@'."
        return f"{self._pull_command()}, or correct the name after '@'."

    def _pull_command(self) -> str:
        variable = offline_variable()
        first = f"Unset {variable} and run" if variable else "Run"
        return f"{first} `ccl teachers pull {shlex.quote(str(self.spec))}`"


def digest_settings(folder: Path, pattern: str = "*") -> str:
    """Hash architecture, processor, tokenizer and code, which affect the embedding, to 8 hex digits.

    Args:
        folder: Folder of the model.
        pattern: Glob of the files to consider.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.glob(pattern) if path.suffix in _HASHED):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _is_any(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(file, each) and file.count("/") == each.count("/") for each in patterns)
