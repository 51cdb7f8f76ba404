"""A published student and where it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ccl_cli.config.spec import parse_model
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import DataError, UsageError, WeightsError
from ccl_cli.training.run.artefact import Artefact, load_model
from ccl_cli.training.run.folder import MANIFEST, RunFolder, locate_model


@dataclass(frozen=True)
class Model:
    """A published student.

    Attributes:
        path: Its file.
        artefact: What is in it.
        run: The run folder that was named; None for a model file alone.
    """

    path: Path
    artefact: Artefact
    run: RunFolder | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return fingerprint(self.path)

    @property
    def manifest(self) -> Manifest | None:
        """The list of videos that lies beside the file; None without one."""
        path = self.path.with_name(MANIFEST)
        return Manifest.load(path) if path.is_file() else None

    def need_classes(self) -> None:
        """Refuse a student that was trained without labels.

        Raises:
            UsageError: it has no classes.
        """
        if not self.artefact.classes:
            raise UsageError(
                f"'{self.path}' was trained without labels: it makes features, and knows no classes.",
                f"Fine-tune it with `ccl train --student {parse_model(self.artefact.recipe.student).label}"
                f"@{self.path} --data SOURCE`; `ccl embed`, and `ccl eval --retrieval`, take it as it is.",
            )

    def metadata(self) -> dict[str, Any]:
        """What identifies it, as plain values."""
        return {
            "path": str(self.path.absolute()),
            "sha256": self.fingerprint,
            "student": str(self.artefact.recipe.student),
            "step": self.artefact.header.get("step"),
        }


def run_manifest(folder: Path) -> Manifest:
    """The list of videos that a run was trained on.

    Raises:
        DataError: the run does not say which.
    """
    if not (folder / MANIFEST).is_file():
        raise DataError(f"'{folder}' holds no {MANIFEST}, which lists its videos.", "Train the run again.")
    return Manifest.load(folder / MANIFEST)


def gone(what: str, data: str, video: Video) -> DataError:
    """The error where none of a run's videos is on disk any more."""
    return DataError(
        f"The {what} of '{data}' are gone, for example '{video.path}'.",
        "Put them back, or name a run whose videos are there.",
    )


def load_student(run: str | Path | None = None, weights: str | None = None) -> Model:
    """The student of a run, a model file, or of the newest run if none is named.

    Args:
        run: Which.
        weights: Of a run with a moving average "ema" or "raw"; None: those that it has published.

    Raises:
        DataError: there is no such run.
        UsageError: there are no such weights.
        WeightsError: it has no model, or a damaged one.
    """
    folder, path = locate_model(run)
    if weights:
        if folder is None:
            raise UsageError("A model file holds one set of weights.", "Name the run's folder to choose.")
        path = folder.model_with(weights)
    return Model(path, load_model(path), folder)


def fingerprint(path: Path) -> str:
    """SHA-256 of a model file.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"The model '{path}' cannot be read: {error.strerror}.") from error
