"""A manifest as an Arrow file: one record batch, which every process maps into its memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ccl_cli.data.manifest.columns import SPLITS, Columns, MappedFile, Texts, from_numpy, path_text, to_numpy
from ccl_cli.data.manifest.videos import Videos
from ccl_cli.errors import DataError
from ccl_cli.utils import json_text
from ccl_cli.utils.files import atomic_path

MAGIC = b"ARROW1"  # how such a file begins and ends
SUFFIX = ".arrow"
_HEADER = b"ccl"
_TEXTS = ("id", "path")
_NUMBERS = {"label": "int32", "split": "int8", "start": "float64", "end": "float64", "size": "int64"}


def write_arrow(
    path: Path, videos: Videos, sizes: NDArray[np.int64], header: Mapping[str, Any], root: str = ""
) -> None:
    """Write a manifest, atomically.

    Args:
        path: The file.
        videos: Its rows.
        sizes: [n] bytes of each video.
        header: Stored with them as JSON.
        root: Paths below this folder are written relative to it.

    Raises:
        OSError: the disk refuses.
    """
    known = videos.columns.root  # what relative paths start from already
    paths = videos.texts("path")
    if root and not known:
        paths, known = _relative(paths, root), root
    columns = [videos.texts("id").values, paths.values]
    columns += [from_numpy(videos.column(name)) for name in _NUMBERS if name != "size"] + [from_numpy(sizes)]
    fields = [
        pa.field(name, column.type, nullable=False)
        for name, column in zip((*_TEXTS, *_NUMBERS), columns, strict=True)
    ]
    text = json.dumps({**header, "splits": SPLITS} | ({"root": known} if known else {}))
    schema = pa.schema(fields, metadata={_HEADER: text.encode()})
    # Readers find a row in constant time, and without a copy, only if there is a single batch.
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    with atomic_path(path) as temporary, temporary.open("wb") as file, pa.ipc.new_file(file, schema) as sink:
        sink.write_batch(batch)


def map_columns(path: Path) -> tuple[Columns, dict[str, Any]]:
    """The columns of a manifest, mapped and not read, and its header.

    Raises:
        DataError: absent, cut off, or not a manifest.
    """
    try:
        state, source = path.stat(), pa.memory_map(os.fspath(path))
    except OSError as error:
        raise DataError(f"The manifest '{path}' cannot be read: {error.strerror or error}.") from error
    try:
        reader = pa.ipc.open_file(source)
        header = dict(json_text.parse((reader.schema.metadata or {})[_HEADER]))
        if reader.num_record_batches != 1:
            raise ValueError("not one batch")
        batch = reader.get_batch(0)
        batch.validate()
        columns: dict[str, Any] = {name: _texts(batch.column(name)) for name in _TEXTS}
        columns |= {name: _numbers(batch.column(name), kind) for name, kind in _NUMBERS.items()}
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{path}' is not a complete manifest.", "Write it again.") from error
    file = MappedFile(str(path.absolute()), (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))
    return Columns(**columns, root=str(header.get("root", "")), file=file), header


def _texts(column: pa.Array) -> Texts:
    if column.type not in (pa.large_string(), pa.large_binary()):
        raise TypeError(f"a column of {column.type}")
    return Texts(column)


def _numbers(column: pa.Array, kind: str) -> NDArray[Any]:
    if column.null_count or str(column.type) != str(pa.from_numpy_dtype(np.dtype(kind))):
        raise TypeError(f"a column of {column.type}")
    return to_numpy(column, kind)


def _relative(paths: Texts, root: str) -> Texts:
    """Paths with the folder taken off where they are below it."""
    prefix = os.path.join(root, "")  # noqa: PTH118
    texts = (paths[row] for row in range(len(paths)))
    return Texts.of(text if text.startswith("{") else path_text(text.removeprefix(prefix)) for text in texts)
