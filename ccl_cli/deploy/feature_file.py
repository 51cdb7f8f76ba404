"""Feature files: safetensors, npz or parquet.

A vector is the mean of the student's features over the windows of a video, as in ``ccl eval``, and is not
normalised. Retrieval normalises vectors to unit length and compares them by dot product, the cosine.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import torch
from numpy.typing import NDArray
from pyarrow import parquet

from ccl_cli import __version__
from ccl_cli.deploy.predict import Feature
from ccl_cli.errors import UsageError
from ccl_cli.evaluation.model import Model
from ccl_cli.utils.files import growing_path
from ccl_cli.utils.tensor_files import write_tensors

FORMAT = "ccl-features-1"
_VECTOR = "mean of the student's features over the video's windows, not normalised; compare by cosine"
_ROWS = 1024  # parquet rows per write


class _Features(ABC):
    """Features of videos, and reasons for unreadable ones."""

    def __init__(self, file: Path, model: Model, precision: str) -> None:
        self.file, self.dim = file, model.artefact.student.feature_dim
        self.lists: dict[str, list[Any]] = {"names": [], "paths": [], "windows": []}
        self.vectors: list[NDArray[np.float32]] = []
        self.unreadable: dict[str, str] = {}
        self._about: dict[str, Any] = {"format": FORMAT, "ccl": __version__, "model": model.metadata()}
        self._about |= {"precision": precision, "vector": _VECTOR, "scaled": False}

    def add(self, feature: Feature) -> None:
        """Add the vector of a video, or the reason why it is unreadable."""
        path = _text(feature.video.path)
        if feature.vector is None:
            self.unreadable[path] = feature.fault or ""
            return
        self.lists["names"].append(_text(feature.video.id))
        self.lists["paths"].append(path)
        self.lists["windows"].append(feature.windows)
        self.vectors.append(feature.vector.numpy())

    def embedding(self) -> NDArray[np.float32]:
        """[V, D] float32."""
        return np.array(self.vectors, np.float32).reshape(-1, self.dim)

    def about(self) -> str:
        """Describe the vectors as JSON."""
        return json.dumps(self._about | {"dim": self.dim, "unreadable": self.unreadable})

    @abstractmethod
    def close(self) -> None:
        """Write the remaining rows."""


class _Npz(_Features):
    def close(self) -> None:
        arrays: dict[str, Any] = {name: np.array(values) for name, values in self.lists.items()}
        with self.file.open("wb") as file:
            np.savez(file, **arrays, embedding=self.embedding(), about=np.array(self.about()))


class _Safetensors(_Features):
    def close(self) -> None:
        header = {"ccl": self.about()} | {name: json.dumps(each) for name, each in self.lists.items()}
        write_tensors(self.file, {"embedding": torch.from_numpy(self.embedding())}, header)


class _Parquet(_Features):
    """Incremental writer that holds at most 1024 rows in memory."""

    def __init__(self, file: Path, model: Model, precision: str) -> None:
        super().__init__(file, model, precision)
        fields = {"name": arrow.string(), "path": arrow.string(), "windows": arrow.int32()}
        vector = arrow.list_(arrow.float32(), self.dim)
        self._writer = parquet.ParquetWriter(file, arrow.schema([*fields.items(), ("embedding", vector)]))

    def add(self, feature: Feature) -> None:
        super().add(feature)
        if len(self.vectors) == _ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.add_key_value_metadata({"ccl": self.about()})
        self._writer.close()

    def _flush(self) -> None:
        vectors = arrow.FixedSizeListArray.from_arrays(self.embedding().ravel(), self.dim)
        self._writer.write_table(arrow.table([*self.lists.values(), vectors], schema=self._writer.schema))
        for each in (*self.lists.values(), self.vectors):
            each.clear()


_FORMS: dict[str, type[_Features]] = {".npz": _Npz, ".safetensors": _Safetensors, ".parquet": _Parquet}


def check_features(path: Path) -> None:
    """Raise a UsageError if the suffix of a file name is not supported."""
    if path.suffix.lower() not in _FORMS:
        raise UsageError(f"The suffix of '{path}' is not supported.", f"Use {', '.join(_FORMS)}.")


@contextmanager
def feature_file(path: Path, model: Model, precision: str) -> Iterator[_Features]:
    """Write features to a file that appears when all are written; after a signal, finished ones are kept."""
    with (
        growing_path(path) as temporary,
        closing(_FORMS[path.suffix.lower()](temporary, model, precision)) as features,
    ):
        yield features


def _text(name: object) -> str:
    """Escape bytes of a path that are not valid text."""
    return str(name).encode("utf-8", "backslashreplace").decode()
