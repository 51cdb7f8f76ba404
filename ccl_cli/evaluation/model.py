"""A published student and its origin."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccl_cli.config.spec import parse_model
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import DataError, UsageError, WeightsError
from ccl_cli.training.run.folder import MANIFEST, RunFolder, locate_model, manifest_path

if TYPE_CHECKING:
    from ccl_cli.training.run.artefact import Artefact


@dataclass(frozen=True)
class Model:
    """A published student; ``run`` is None for a single model file."""

    path: Path
    artefact: Artefact
    run: RunFolder | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return fingerprint(self.path)

    @property
    def manifest(self) -> Manifest | None:
        """The manifest beside the model file, or None."""
        path = manifest_path(self.path.parent)
        return Manifest.load(path) if path.is_file() else None

    def need_classes(self) -> None:
        """Raise a UsageError if the student was trained without labels."""
        if not self.artefact.classes:
            raise UsageError(
                f"'{self.path}' was trained without labels: it has features but no classes.",
                f"Fine-tune it with `ccl train --student {parse_model(self.artefact.recipe.student).label}"
                f"@{self.path} --data SOURCE`, or use `ccl embed` or `ccl eval --retrieval`.",
            )

    def metadata(self) -> dict[str, Any]:
        """Identifying metadata as JSON values."""
        return {
            "path": str(self.path.absolute()),
            "sha256": self.fingerprint,
            "student": str(self.artefact.recipe.student),
            "step": self.artefact.header.get("step"),
        }


def run_manifest(folder: Path) -> Manifest:
    """Load the manifest of the videos that a run was trained on; without one, raise a DataError."""
    path = manifest_path(folder)
    if not path.is_file():
        raise DataError(f"'{folder}' contains no {MANIFEST}, which lists its videos.", "Train the run again.")
    return replace(_manifest(path, path.stat().st_mtime_ns))  # a copy, which measures the files again


@lru_cache(maxsize=1)
def _manifest(path: Path, changed: int) -> Manifest:
    """Load a manifest; the last one is kept, because a page asks for it several times."""
    return Manifest.load(path)


def missing_videos(what: str, data: str, video: Video) -> DataError:
    """Return the error for a run whose videos were all deleted."""
    return DataError(
        f"The {what} of '{data}' are not on disk, for example '{video.path}'.",
        "Restore them, or use a run whose videos exist.",
    )


def load_student(run: str | Path | None = None, weights: str | None = None) -> Model:
    """Load the student of a run or a model file.

    Args:
        run: Run folder or model file. Default: the newest run.
        weights: "ema" or "raw", for a run with a moving average. Default: the published weights.

    Raises:
        DataError: the run does not exist.
        UsageError: the run has no such weights.
        WeightsError: the model is missing or damaged.
    """
    from ccl_cli.training.run.artefact import load_model

    folder, path = locate_model(run)
    if weights:
        if folder is None:
            raise UsageError(
                "A model file contains one set of weights.", "Use the run folder to choose between them."
            )
        path = folder.model_with(weights)
    return Model(path, load_model(path), folder)


def fingerprint(path: Path) -> str:
    """Compute the SHA-256 of a model file; if it cannot be read, raise a WeightsError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"The model '{path}' cannot be read: {error.strerror}.") from error
