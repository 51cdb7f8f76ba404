"""Approximate search with faiss, for libraries that are too large to be read whole for each query."""

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
PROBES = 32  # lists of nearby vectors that a query looks into
_NOTE = "faiss"
_PER_LIST = 39  # vectors of the sample for each list, as many as faiss recommends


def build(library: Library, folder: Path) -> None:
    """Divide the vectors into lists of nearby ones (faiss's IVF, whole vectors), held in memory meanwhile.

    Raises:
        SystemSetupError: faiss is not installed.
        UsageError: the library is empty.
    """
    faiss = _faiss()
    videos = len(library)
    if not videos:
        raise UsageError("The library holds no videos.", "Index some first.")
    if library.noted(_NOTE) == library.state and (folder / FILE).is_file():
        return
    lists = max(1, min(round(4 * math.sqrt(videos)), videos // _PER_LIST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(library.dim), library.dim, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # a library of a few videos is one list, without a warning
    index.train(_sample(library, _PER_LIST * lists))
    for numbers, vectors in library.blocks():
        index.add_with_ids(vectors, numbers)
    with atomic_path(folder / FILE) as temporary:
        faiss.write_index(index, str(temporary))
    library.note(_NOTE, library.state)


def search(
    library: Library, folder: Path, queries: NDArray[np.float32], top: int, probes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosines and numbers of about the nearest videos, the nearest first; number -1 where there are fewer.

    Shapes:
        queries: [Q, D] of length one.
        returns: [Q, top] each.

    Raises:
        SystemSetupError: faiss is not installed.
        DataError: there is no such index, or the library has changed since.
    """
    faiss = _faiss()
    hint = f"Make it: ccl index --output {folder} --approximate"
    if not (folder / FILE).is_file():
        raise DataError(f"The library '{folder}' has no index for approximate search.", hint)
    if library.noted(_NOTE) != library.state:
        raise DataError(f"The library '{folder}' has changed since its approximate index was made.", hint)
    try:
        index: Any = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        (folder / FILE).unlink()
        raise DataError(f"'{folder / FILE}' was damaged and has been removed.", hint) from error
    index.nprobe = probes
    cosines, numbers = index.search(np.ascontiguousarray(queries), top)
    return cosines, numbers


def check_installed() -> None:
    """Check that there is faiss.

    Raises:
        SystemSetupError: it is not installed.
    """
    _faiss()


def remove_index(folder: Path) -> None:
    """Remove the index, as it is of a library that is going to be another one."""
    (folder / FILE).unlink(missing_ok=True)


def _sample(library: Library, count: int) -> NDArray[np.float32]:
    """About so many vectors, drawn from the whole library."""
    rng, share = np.random.default_rng(0), count / len(library)
    return np.concatenate(
        [vectors[rng.random(len(vectors)) < 1.1 * share] for _, vectors in library.blocks()]
    )


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise SystemSetupError(
            "Approximate search needs faiss, which is not installed.",
            "Install it with `pip install 'ccl-cli[faiss]'`, or search exactly.",
        ) from error
    return faiss
