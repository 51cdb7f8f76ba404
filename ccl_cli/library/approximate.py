"""Approximate nearest-neighbour search with faiss, for libraries too large for an exact search."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccl_cli.errors import DataError, SystemSetupError, UsageError
from ccl_cli.library.store import Library
from ccl_cli.utils.files import atomic_path

FILE = "library.faiss"
_PER_LIST = 39  # training vectors per list, as recommended by faiss


def build(library: Library, folder: Path) -> None:
    """Build an inverted file index (faiss IVF, flat vectors). All vectors are in memory meanwhile."""
    faiss, videos, dim = import_faiss(), len(library), library.about.dim
    if not videos:
        raise UsageError("The library has no videos.", "Index some videos first.")
    if library.about.indexed == library.state and (folder / FILE).is_file():
        return
    lists = max(1, min(round(4 * math.sqrt(videos)), videos // _PER_LIST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # avoid a warning for small libraries
    rng, share = np.random.default_rng(0), 1.1 * _PER_LIST * lists / videos
    index.train(
        np.concatenate([vectors[rng.random(len(vectors)) < share] for _, vectors in library.blocks()])
    )
    for numbers, vectors in library.blocks():
        index.add_with_ids(vectors, numbers)
    with atomic_path(folder / FILE) as temporary:
        faiss.write_index(index, str(temporary))
    library.note(indexed=library.state)


def search(
    library: Library, folder: Path, queries: NDArray[np.float32], top: int, probes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return cosines and ids [Q, top] of the approximate nearest videos, nearest first; -1: fewer exist.

    Shapes: queries: [Q, D], unit length.

    Raises:
        DataError: the index does not exist or is damaged, or the library has changed since it was built.
    """
    faiss = import_faiss()
    hint = f"Build it: ccl index --output {folder} --approximate"
    if library.about.indexed is None or not (folder / FILE).is_file():
        raise DataError(f"The library '{folder}' has no approximate index.", hint)
    if library.about.indexed != library.state:
        raise DataError(f"The library '{folder}' has changed since its approximate index was built.", hint)
    try:
        index: Any = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        (folder / FILE).unlink()
        raise DataError(f"'{folder / FILE}' was damaged and has been removed.", hint) from error
    index.nprobe = probes
    cosines, numbers = index.search(np.ascontiguousarray(queries), top)
    return cosines, numbers


def import_faiss() -> Any:
    """Import faiss; if it is not installed, raise a SystemSetupError."""
    try:
        import faiss
    except ImportError as error:
        raise SystemSetupError(
            "Approximate search needs faiss, which is not installed.",
            "Install it with `pip install 'ccl-cli[faiss]'`, or omit --approximate.",
        ) from error
    return faiss
