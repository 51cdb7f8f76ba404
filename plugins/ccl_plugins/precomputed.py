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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors import safe_open
from torch import Tensor

from ccl_cli.config.spec import Spec
from ccl_cli.errors import DataError, PluginError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.options import read_options
from ccl_cli.utils.download import reason

if TYPE_CHECKING:
    from ccl_cli.data.clips.window import Window

Rows = NDArray[np.float32]


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
        entry, label = self._entries[name], f"The embedding '{name}' in '{self.source}'"
        array = _load_npy(entry) if isinstance(entry, Path) else np.asarray(entry)
        with np.errstate(over="ignore"):
            rows = array.astype(np.float32, copy=False) if array.dtype.kind in "fiu" else None
        if rows is None or not np.isfinite(rows).all():
            raise DataError(
                f"{label} contains values that are not finite numbers.",
                "Recompute or remove such embeddings: videos without one count as absent.",
            )
        if rows.ndim not in (1, 2) or not rows.shape[-1]:
            raise DataError(f"{label} has shape {list(rows.shape)}; it must be [D] or [N, D].")
        return rows.reshape(-1, rows.shape[-1])

    @functools.cached_property
    def dim(self) -> int:
        """Embedding dimension D, of the first entry."""
        return int(self.rows(next(iter(self._entries))).shape[1])

    @functools.cached_property
    def hash(self) -> str:
        """Hash of all names and values, 16 hex digits; reads and checks the whole table.

        Raises:
            DataError: the embeddings have different dimensions, or one of them is invalid, see :meth:`rows`.
        """
        digest = hashlib.sha256()
        for name in sorted(self._entries):
            rows = self.rows(name)
            if rows.shape[1] != self.dim:
                raise DataError(
                    f"'{self.source}' mixes dimensions: '{name}' has {rows.shape[1]}, others {self.dim}."
                )
            digest.update(f"{name}{rows.shape}".encode(errors="surrogatepass"))
            digest.update(rows.tobytes())
        return digest.hexdigest()[:16]


def open_table(path: str) -> Table:
    """Open the table at ``path``; each process reads it once.

    Raises:
        DataError: the table is missing, damaged, or in another format.
    """
    try:
        return _open_table(path, os.stat(path).st_mtime_ns)  # noqa: PTH116
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"There are no embeddings at '{path}'.", "Correct the path after '@'.") from error
    except Exception as error:  # the libraries raise many types for damaged files
        raise DataError(
            f"'{path}' cannot be read as a table of embeddings: {reason(error)[:200]}."
        ) from error


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
    dtype: ClassVar[torch.dtype] = torch.float32

    @property
    def shape(self) -> tuple[int]:
        """Shape of the input, [dim]."""
        return (self.dim,)

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
        self.modality, self.table, self.dim = modality, table, table.dim
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

    def coverage(self, ids: Sequence[str]) -> int:
        """Count the videos with an embedding.

        Raises:
            DataError: two videos have the same embedding.
        """
        videos: dict[str, str] = {}
        for video in ids:
            name = self.table.find(video)
            if name is not None and videos.setdefault(name, video) != video:
                raise DataError(
                    f"'{self.table.source}' has one embedding for both '{videos[name]}' and '{video}'.",
                    "Name the embeddings like the videos of the data set, including their folders.",
                )
        return len(videos)

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
        names = (file.relative_to(source).as_posix().removesuffix(".npy") for file in files)
        return Table(source, dict(zip(names, files, strict=True)))
    if source.suffix == ".npz":
        return Table(source, _read_npz(source))
    if source.suffix == ".safetensors":
        return Table(source, _read_safetensors(source))
    raise DataError(
        f"'{source}' is not a table of embeddings.",
        "Use a folder of .npy files, an .npz file or a .safetensors file.",
    )


def _read_npz(path: Path) -> Mapping[str, NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = dict(archive)
    if arrays.keys() >= {"names", "embedding"}:
        return _paired(path, [str(name) for name in arrays["names"]], arrays["embedding"])
    return arrays


def _read_safetensors(path: Path) -> Mapping[str, NDArray[Any]]:
    with safe_open(path, "pt") as file:
        # Read with torch, because numpy has no bfloat16.
        arrays = {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118
        header = file.metadata() or {}
    if "names" in header and arrays.keys() == {"embedding"}:
        return _paired(path, TypeAdapter(list[str]).validate_json(header["names"]), arrays["embedding"])
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


def _basename(name: str) -> str:
    return name.rpartition("/")[2]
