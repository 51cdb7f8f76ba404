"""The videos of a data set as columns, in memory or mapped from a file."""

from __future__ import annotations

import json
import math
import os
import posixpath
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ccl_cli.data.video.storage import Location, Packed, file_size, from_plain, size_of, to_plain
from ccl_cli.errors import DataError
from ccl_cli.utils.shared_array import SharedArray

SPLITS = ("train", "val", "test")
UNLABELLED = -1
ABSENT = -1  # size of a video that is not on disk
CODES = {name: code for code, name in enumerate(SPLITS)}
Numbers = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Video:
    """One row: a video file, or a segment of one.

    Attributes:
        id: Unique within the data set: posix path without suffix, relative to the set's root.
        path: Absolute path of the file, which may be absent, or its place in a shard.
        label: Index into the manifest's classes; None: unlabelled.
        split: "train", "val" or "test".
        start: Seconds from the start of the file where the segment begins; None: the file's start.
        end: Seconds where it ends; None: the file's end.
    """

    id: str
    path: Location
    label: int | None
    split: str
    start: float | None = None
    end: float | None = None

    @property
    def target(self) -> int:
        """The label as tensors hold it: :data:`UNLABELLED` where there is none."""
        return UNLABELLED if self.label is None else self.label


class Texts:
    """A column of texts: an Arrow array of large strings, or of large binaries if one is no UTF-8."""

    def __init__(self, values: pa.Array) -> None:
        self.values = values
        _, offsets, data = values.buffers()
        self._offsets = np.zeros(1, np.int64)
        if len(values):
            self._offsets = np.frombuffer(offsets, np.int64, len(values) + 1, 8 * values.offset)
        self._data = memoryview(data) if data else memoryview(b"")

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Encode texts; the bytes of a file name that is no UTF-8 stay what they are on disk."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([*map(len, encoded)], out=offsets[1:])
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
        return cls(_as_strings(pa.Array.from_buffers(pa.large_binary(), len(encoded), buffers)))

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """All texts of several columns."""
        if len(parts) == 1:
            return parts[0]
        values = pa.concat_arrays([part.values.cast(pa.large_binary()) for part in parts])
        return cls(_as_strings(values))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> str:
        # A slice of a memoryview stays inside of it, whatever a damaged file says.
        begin, end = self._offsets.item(row), self._offsets.item(row + 1)
        return str(self._data[begin:end], "utf-8", "surrogateescape")

    def __reduce__(self) -> tuple[Any, ...]:
        return Texts, (self.values,)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] bytes of each text."""
        return np.diff(self._offsets)

    @property
    def content(self) -> memoryview:
        """The bytes of all texts, one after the other."""
        return self._data[self._offsets[0] : self._offsets[-1]]

    def starting_with(self, letter: str) -> NDArray[np.bool_]:
        """[n] whether each text starts with an ASCII letter."""
        data, begins = np.frombuffer(self._data, np.uint8), self._offsets[:-1]
        if not len(data):
            return np.zeros(len(begins), np.bool_)
        first = data[np.minimum(begins, len(data) - 1)]
        starts: NDArray[np.bool_] = (first == ord(letter)) & (self._offsets[1:] > begins)
        return starts


class MappedFile(NamedTuple):
    """The file that columns are mapped from, and what tells it from one that has replaced it."""

    path: str
    identity: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a list of videos, in memory or mapped from a file; [n] each.

    Attributes:
        id: Ids.
        path: Paths of files, absolute or relative to ``root``; places in shards, as JSON.
        label: int32, :data:`UNLABELLED` without one.
        split: int8, index into :data:`SPLITS`.
        start: float64, seconds; NaN: the file's start.
        end: float64, seconds; NaN: the file's end.
        size: int64, bytes of each video when the list was written, :data:`ABSENT` without a file; None: not
            measured.
        root: Folder of relative paths; "" if there are none.
        file: Where they are mapped from.
        laid_over: The columns that are not those of the file.
    """

    id: Texts
    path: Texts
    label: Numbers
    split: NDArray[np.int8]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    size: NDArray[np.int64] | None = None
    root: str = ""
    file: MappedFile | None = None
    laid_over: tuple[tuple[str, SharedArray], ...] = ()

    def __len__(self) -> int:
        return len(self.label)

    def video(self, row: int) -> Video:
        """One row.

        Raises:
            DataError: its path is none.
        """
        label, start, end = self.label.item(row), self.start.item(row), self.end.item(row)
        try:
            path = located(self.root, self.path[row])
        except (ValueError, TypeError) as error:
            raise DataError(f"'{self.id[row]}': {error}.", "Write the manifest again.") from error
        return Video(
            self.id[row],
            path,
            None if label == UNLABELLED else label,
            SPLITS[self.split.item(row)],
            None if math.isnan(start) else start,
            None if math.isnan(end) else end,
        )

    def measure(self, rows: Iterable[int]) -> Iterator[int]:
        """The present size of the videos of some rows in bytes, :data:`ABSENT` without a file."""
        folder = f"{self.root}/"
        for row in rows:
            text = self.path[row]
            if text.startswith("{"):
                size = size_of(located("", text))
            else:
                size = file_size(text if text.startswith("/") else folder + text)
            yield ABSENT if size is None else size

    def lay_over(self, name: str, values: NDArray[Any]) -> Columns:
        """The same with one column replaced, which processes that read a mapped list share."""
        shared = SharedArray(values)
        others = tuple(each for each in self.laid_over if each[0] != name)
        changes: dict[str, Any] = {name: values, "laid_over": (*others, (name, shared))}
        return replace(self, **changes)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.file is None:
            numbers = (self.label, self.split, self.start, self.end, self.size)
            return Columns, (self.id, self.path, *numbers, self.root)
        return _mapped_again, (self.file, self.root, self.laid_over)


def _mapped_again(file: MappedFile, root: str, laid_over: tuple[tuple[str, SharedArray], ...]) -> Columns:
    """In another process: the same columns, mapped from the same file."""
    from ccl_cli.data.manifest.arrow_file import map_columns

    columns = map_columns(Path(file.path))[0]
    if columns.file != file:
        raise DataError(f"The manifest '{file.path}' was replaced while it was read.", "Start again.")
    changes: dict[str, Any] = {name: shared.values for name, shared in laid_over}
    return replace(columns, root=root, laid_over=laid_over, **changes)


# pyarrow's own conversions import pandas, which takes 0.2 s and 35 MB in every worker.
def from_numpy(values: NDArray[Any]) -> pa.Array:
    """An array of numbers as Arrow's, without a copy."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def to_numpy(column: pa.Array, kind: str) -> NDArray[Any]:
    """Arrow's array of numbers of a type of numpy's, none of them null, without a copy."""
    if not len(column):
        return np.empty(0, kind)
    dtype = np.dtype(kind)
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)


def located(root: str, text: str) -> Location:
    """A place in a shard or an absolute path as it is, a relative one below the root.

    Raises:
        ValueError, TypeError: it is neither, or leaves the root.
    """
    if text.startswith("{"):
        return from_plain(json.loads(text))
    if ".." in text and os.path.normpath(text).startswith(".."):
        raise ValueError(f"the path '{text}' leaves the folder '{root}'")
    return Path(posixpath.join(root, text))


def joined(parts: Sequence[Columns]) -> Columns:
    """The rows of several lists, which have the same root and no sizes."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return columns_of([])
    return Columns(
        Texts.joined([part.id for part in parts]),
        Texts.joined([part.path for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.split for part in parts]),
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.end for part in parts]),
        root=parts[0].root,
    )


def make_columns(
    ids: Sequence[str],
    paths: Sequence[str],
    labels: Sequence[int | None],
    splits: Sequence[str],
    starts: Sequence[float | None],
    ends: Sequence[float | None],
    root: str = "",
) -> Columns:
    """Columns of values by row; of a video in a shard, the path is its JSON.

    Raises:
        DataError: names a row whose value is of another type, or is in an unknown split.
    """
    unknown = next((row for row, split in enumerate(splits) if split not in CODES), None)
    if unknown is not None:
        known = ", ".join(SPLITS)
        raise DataError(f"'{ids[unknown]}' is in the unknown split '{splits[unknown]}'.", f"Known: {known}.")
    wrong = next((row for row, label in enumerate(labels) if label is not None and label < 0), None)
    if wrong is not None:
        raise DataError(f"'{ids[wrong]}' has label {labels[wrong]}.", "Labels count from 0; None: no label.")
    return Columns(
        Texts.of(ids),
        Texts.of(paths),
        np.asarray(array("i", [UNLABELLED if each is None else each for each in labels])),
        np.asarray(array("b", map(CODES.__getitem__, splits))),
        np.asarray(array("d", [math.nan if at is None else at for at in starts])),
        np.asarray(array("d", [math.nan if at is None else at for at in ends])),
        root=root,
    )


def columns_of(videos: Sequence[Video]) -> Columns:
    """Columns of videos that are objects.

    Raises:
        DataError: names a row that no column can hold.
    """
    try:
        return make_columns(
            [video.id for video in videos],
            [location_text(video.path) for video in videos],
            [video.label for video in videos],
            [video.split for video in videos],
            [video.start for video in videos],
            [video.end for video in videos],
        )
    except (TypeError, AttributeError, ValueError, OverflowError) as error:
        if len(videos) == 1:
            hint = "Correct the data source: labels are whole numbers, starts and ends are seconds."
            raise DataError(f"A row of the data set is wrong: {videos[0]!r}: {error}.", hint) from error
        for video in videos:  # find the row
            columns_of([video])
        raise


def path_text(path: str) -> str:
    """The path of a file as its column has it: only places in shards begin like JSON."""
    return f"./{path}" if path.startswith("{") else path


def location_text(location: Location) -> str:
    """A location as the column of paths has it.

    Raises:
        TypeError: it is neither a path nor a place in a shard.
    """
    if isinstance(location, Packed):
        return json.dumps(to_plain(location))
    if not isinstance(location, Path):
        raise TypeError(f"the path {location!r} is neither a Path nor a place in a shard")
    return path_text(str(location))


def _as_strings(values: pa.Array) -> pa.Array:
    try:
        return values.cast(pa.large_string())
    except pa.ArrowInvalid:
        return values
