"""A manifest as an Arrow file with one record batch, which all processes map into memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ccl_cli.data.manifest.columns import SPLITS, Columns, Texts
from ccl_cli.data.manifest.json_lines import base_folder, parse_header
from ccl_cli.data.manifest.videos import Videos
from ccl_cli.errors import DataError
from ccl_cli.utils.files import atomic_path

SUFFIX = ".arrow"
_HEADER = b"ccl"
_TEXT = (pa.large_string(), pa.large_binary())
_TYPES: dict[str, tuple[pa.DataType, ...]] = {
    "id": _TEXT,
    "path": _TEXT,
    "label": (pa.int32(),),
    "split": (pa.int8(),),
    "start": (pa.float64(),),
    "end": (pa.float64(),),
    "size": (pa.int64(),),
}


def write_arrow(path: Path, videos: Videos, sizes: NDArray[np.int64], header: Mapping[str, Any]) -> None:
    """Write rows with their sizes ([n], bytes) and a header, atomically."""
    columns = [videos.ids.values, videos.texts("path").values]
    columns += [_as_arrow(videos.column(name)) for name in ("label", "split", "start", "end")]
    columns.append(_as_arrow(sizes))
    # Only in a single batch are rows found in constant time and without a copy.
    batch = pa.RecordBatch.from_arrays(columns, list(_TYPES))
    batch = batch.replace_schema_metadata({_HEADER: json.dumps({**header, "splits": SPLITS}).encode()})
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        pa.ipc.new_file(file, batch.schema) as sink,
    ):
        sink.write_batch(batch)


def map_columns(path: Path, root: Path | str | None = None) -> tuple[Columns, dict[str, Any]]:
    """Map the columns of a manifest, and read its header; ``root`` as in :func:`base_folder`.

    Raises:
        DataError: the file is missing, truncated or not a manifest.
    """
    try:
        source = pa.memory_map(os.fspath(path))
    except OSError as error:
        raise DataError(f"The manifest '{path}' cannot be read: {error.strerror or error}.") from error
    try:
        reader = pa.ipc.open_file(source)
        header = parse_header((reader.schema.metadata or {})[_HEADER])
        header["hash"] = str(header["hash"])
        if reader.num_record_batches != 1:
            raise ValueError("not one batch")
        batch = reader.get_batch(0)
        batch.validate()
        if header["videos"] != len(batch):
            raise ValueError("missing rows")
        columns: dict[str, Any] = {name: _column(batch, name) for name in _TYPES}
        columns |= {"root": base_folder(path, root, header), "file": (str(path.absolute()), header["hash"])}
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{path}' is not a complete manifest: {error}.", "Write it again.") from error
    return Columns(**columns), header


# pyarrow's conversions import pandas, which takes 0.2 s and 35 MB in every worker.
def _column(batch: pa.RecordBatch, name: str) -> Texts | NDArray[Any]:
    column = batch.column(name)
    if column.type not in _TYPES[name]:
        raise TypeError(f"'{name}' is a column of {column.type}")
    return Texts(column) if column.type in _TEXT else np.from_dlpack(column)  # TypeError: nulls


def _as_arrow(values: NDArray[Any]) -> pa.Array:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)
