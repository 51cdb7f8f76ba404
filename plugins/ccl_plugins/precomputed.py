"""``<modality>:precomputed@PATH``: a table of precomputed embeddings, indexed by video id.

PATH is one of

* a folder of ``.npy`` files at any depth, for example ``<Class>/<video>.npy`` as published by the authors;
* an ``.npz`` file with the arrays ``names`` and ``embedding``, or with one array per video;
* a ``.safetensors`` file with one tensor per video, or with a tensor ``embedding`` and a JSON list ``names``
  in its header.

The array of a video is ``[D]``, or ``[N, D]`` for N segments.
"""

from __future__ import annotations

import functools
import hashlib
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ccl_cli.config.spec import Spec
from ccl_cli.errors import DataError, PluginError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.options import read_options
from ccl_cli.utils.sentences import listed

if TYPE_CHECKING:
    from ccl_cli.data.clips.window import Window

Rows = NDArray[np.float32]
_NOT_FINITE = "Recompute or remove them: videos without an embedding count as absent."


class Table:
    """Embeddings by the name of a video.

    Args:
        source: The file or folder, for messages.
        entries: For each name, an array [D] or [N, D], or the ``.npy`` file that contains it.

    Raises:
        DataError: there are no entries.
    """

    def __init__(self, source: Path, entries: Mapping[str, NDArray[Any] | Path]) -> None:
        if not entries:
            raise DataError(f"'{source}' contains no embeddings.")
        self.source = source
        self._entries = entries
        self._by_basename: dict[str, list[str]] = {}
        for name in entries:
            self._by_basename.setdefault(_basename(name), []).append(name)

    def __len__(self) -> int:
        return len(self._entries)

    @functools.cached_property
    def dim(self) -> int:
        """Embedding dimension D; reads only the headers of ``.npy`` files.

        Raises:
            DataError: the embeddings have different dimensions, or an array is not [D] or [N, D].
        """
        widths: dict[int, str] = {}
        for name, entry in self._entries.items():
            shape = _npy_shape(entry) if isinstance(entry, Path) else entry.shape
            widths.setdefault(_width(shape, self._label(name)), name)
        if len(widths) > 1:
            (one, first), (other, second) = sorted(widths.items())[:2]
            raise DataError(
                f"'{self.source}' mixes dimensions: '{first}' has {one} and '{second}' has {other}."
            )
        return next(iter(widths))

    def find(self, video: str) -> str | None:
        """Return the table's name of a video, or None if it is not in the table.

        One of the two names may have more leading folders than the other (``Archery/v1`` and ``v1``) if the
        last part is unique in the table.
        """
        if video in self._entries:
            return video
        names = self._by_basename.get(_basename(video), [])
        if len(names) != 1:
            return None
        shorter, longer = sorted((names[0], video), key=len)
        return names[0] if longer.endswith(f"/{shorter}") else None

    def rows(self, name: str) -> Rows:
        """Return the embeddings of one name, ``[N, D]`` float32; N is 1 for an array [D].

        Raises:
            DataError: the array is damaged, has another shape, or contains values that are not finite.
        """
        rows = self._finite(name)
        if rows is None:
            raise DataError(f"{self._label(name)} contains values that are not finite numbers.", _NOT_FINITE)
        return rows

    def coverage(self, videos: Iterable[str]) -> int:
        """Count the videos (ids) that are in the table.

        Raises:
            DataError: two videos have the same embedding.
        """
        stems: dict[str, str] = {}
        for video in videos:
            name = self.find(video)
            if name is not None and stems.setdefault(name, video) != video:
                raise DataError(
                    f"'{self.source}' has one embedding '{name}' for both '{stems[name]}' and '{video}'.",
                    "Name the embeddings like the videos of the data set, including their folders.",
                )
        return len(stems)

    @functools.cached_property
    def hash(self) -> str:
        """Hash of all names and values, 16 hex digits; reads the whole table.

        Raises:
            DataError: see :meth:`rows`; the message lists all embeddings with values that are not finite.
        """
        digest = hashlib.sha256()
        bad = []
        for name in sorted(self._entries):
            rows = self._finite(name)
            if rows is None:
                bad.append(name)
            else:
                digest.update(f"{name}{rows.shape}".encode(errors="surrogatepass"))
                digest.update(rows.tobytes())
        if len(bad) == 1:
            self.rows(bad[0])  # raises the error for a single embedding
        if bad:
            raise DataError(
                f"'{self.source}' has {len(bad)} embeddings with values that are not finite numbers: "
                f"{listed(bad, 20)}.",
                _NOT_FINITE,
            )
        return digest.hexdigest()[:16]

    def _finite(self, name: str) -> Rows | None:
        """The embeddings of one name, ``[N, D]`` float32; None if a value is not finite."""
        entry = self._entries[name]
        array = _load_npy(entry) if isinstance(entry, Path) else entry
        if array.dtype.kind not in "fiu":
            return None
        with np.errstate(over="ignore"):
            single = array.astype(np.float32, copy=False)
        return (
            single.reshape(-1, _width(array.shape, self._label(name))) if np.isfinite(single).all() else None
        )

    def _label(self, name: str) -> str:
        return f"The embedding '{name}' in '{self.source}'"


def open_table(path: str) -> Table:
    """Open the table at ``path``; each process reads it once.

    Raises:
        DataError: the table is missing, damaged, or in another format.
    """
    try:
        return _open_table(path, os.stat(path).st_mtime_ns)  # noqa: PTH116
    except FileNotFoundError as error:
        raise DataError(f"There are no embeddings at '{path}'.", "Correct the path after '@'.") from error
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        MemoryError,
        SafetensorError,
        zipfile.BadZipFile,
    ) as error:
        raise DataError(f"'{path}' cannot be read as a table of embeddings: {error}.") from error


@dataclass(frozen=True)
class LookUp:
    """Preprocessing: the video's embedding in the table.

    If a video has several embeddings, a random one is used in training and their mean in evaluation.

    Attributes:
        path: Path of the table.
        dim: Embedding dimension D.
        zero_is_missing: Treat an embedding of zeros as absent (official code).
    """

    path: str
    dim: int
    zero_is_missing: bool = False

    @property
    def shape(self) -> tuple[int]:
        """Shape of the input, [dim]."""
        return (self.dim,)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the input: float32."""
        return torch.float32

    def __call__(self, window: Window) -> Tensor | None:
        """Return the embedding ``[dim]``, or None if the table has none for this video."""
        table = open_table(self.path)
        name = table.find(window.video.id)
        rows = table.rows(name) if name is not None else np.empty((0, self.dim), np.float32)
        if not len(rows):
            return None
        drawn = rows[int(window.rng.integers(len(rows))), None] if window.training and len(rows) > 1 else rows
        row = torch.from_numpy(drawn.mean(axis=0))
        return None if self.zero_is_missing and not row.any() else row


class Precomputed(Teacher):
    """Teacher without a network: its embeddings are read from a table.

    Options: ``zero_is_missing`` (false): whether an embedding of zeros means that the modality is absent.
    """

    def __init__(self, modality: str, table: Table, zero_is_missing: bool = False) -> None:
        super().__init__()
        self.modality = modality
        self.table = table
        self.dim = table.dim
        self.variant = f"precomputed@{table.source.name}"
        self.preprocess = LookUp(str(table.source), table.dim, zero_is_missing)

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Build the teacher from ``<modality>:precomputed@PATH[?zero_is_missing=true]``."""
        options = read_options(spec, zero_is_missing=False)
        if not spec.weights:
            raise PluginError(f"{spec.label} needs a table of embeddings.", f"Use {spec.label}@PATH.")
        table = open_table(os.path.realpath(Path(spec.weights).expanduser()))
        table.hash  # noqa: B018  reads the whole table, to report errors before training
        return cls(spec.kind, table, options["zero_is_missing"]).freeze()

    def forward(self, x: Tensor) -> Tensor:
        """Return the input ``[B, dim]`` as float32."""
        return x.float()

    def coverage(self, videos: Iterable[str]) -> int:
        """Count the videos (ids) with an embedding; see :meth:`Table.coverage`."""
        return self.table.coverage(videos)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of modality, option, names and values; independent of the table's path."""
        assert isinstance(self.preprocess, LookUp)
        name = f"{self.modality}:{self.preprocess_version}:{self.preprocess.zero_is_missing}"
        return f"{hashlib.sha256(name.encode()).hexdigest()[:8]}-{self.table.hash}"


@functools.lru_cache(maxsize=8)
def _open_table(path: str, _mtime: int) -> Table:
    source = Path(path)
    if source.is_dir():
        files = sorted(source.rglob("*.npy"))
        return Table(
            source, {file.relative_to(source).as_posix().removesuffix(".npy"): file for file in files}
        )
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if source.suffix not in readers:
        raise DataError(
            f"'{source}' is not a table of embeddings.",
            "Use a folder of .npy files, an .npz file or a .safetensors file.",
        )
    return Table(source, readers[source.suffix](source))


def _read_npz(path: Path) -> Mapping[str, NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = dict(archive)
    if not all(isinstance(each, np.ndarray) for each in arrays.values()):
        raise ValueError("it contains more than arrays")
    if arrays.keys() >= {"names", "embedding"}:
        return _paired(path, [str(name) for name in arrays["names"]], arrays["embedding"])
    return arrays


def _read_safetensors(path: Path) -> Mapping[str, NDArray[Any]]:
    with safe_open(path, "pt") as file:
        # Read with torch, because numpy has no bfloat16.
        arrays = {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118
        header = file.metadata() or {}
    if "names" in header and arrays.keys() == {"embedding"}:
        try:
            names = TypeAdapter(list[str]).validate_json(header["names"])
        except ValidationError as error:
            raise DataError(f"'{path}': `names` in its header must be a JSON list of strings.") from error
        return _paired(path, names, arrays["embedding"])
    return arrays


def _paired(path: Path, names: list[str], embedding: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
    if len(names) != len(embedding) or len(set(names)) != len(names):
        raise DataError(f"'{path}' has {len(set(names))} different names for {len(embedding)} embeddings.")
    return dict(zip(names, embedding, strict=True))


def _load_npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
        return array
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise DataError(f"'{path}' cannot be read as an array: {error}.") from error


def _npy_shape(path: Path) -> tuple[int, ...]:
    header = np.lib.format
    try:
        with path.open("rb") as file:
            first = header.read_magic(file) == (1, 0)
            read = header.read_array_header_1_0 if first else header.read_array_header_2_0
            return read(file)[0]
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise DataError(f"'{path}' cannot be read as an array: {error}.") from error


def _width(shape: tuple[int, ...], label: str) -> int:
    if len(shape) not in (1, 2) or not shape[-1]:
        raise DataError(f"{label} has shape {list(shape)}; it must be [D] or [N, D].")
    return shape[-1]


def _basename(name: str) -> str:
    return name.rpartition("/")[2]
