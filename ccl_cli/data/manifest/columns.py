"""Columns of a list of videos, in memory or mapped from a file; a :class:`Video` is one row."""

from __future__ import annotations

import json
import math
import os
import posixpath
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ccl_cli.data.video.storage import Location, Packed, file_size, from_plain, is_url, size_of, to_plain
from ccl_cli.errors import DataError
from ccl_cli.utils.shared_array import SharedArray

SPLITS = ("train", "val", "test")
UNLABELLED = -1
ABSENT = -1  # size of a missing video
SPLIT_CODES = {name: code for code, name in enumerate(SPLITS)}


@dataclass(frozen=True, slots=True)
class Video:
    """One row: a video, or a segment of a video.

    Attributes:
        id: Unique id in the data set: posix path without suffix, relative to the root of the set.
        path: Absolute path of the file, which may be missing, or a place in a shard.
        label: Index into the manifest's classes; None: unlabelled.
        split: "train", "val" or "test".
        start: Start of the segment, seconds from the start of the file; None: the file's start.
        end: End of the segment, seconds from the start of the file; None: the file's end.
    """

    id: str
    path: Location
    label: int | None
    split: str
    start: float | None = None
    end: float | None = None

    @property
    def target(self) -> int:
        """The label in tensors: :data:`UNLABELLED` without a label."""
        return UNLABELLED if self.label is None else self.label


class Texts(Sequence[str]):
    """A column of texts: an Arrow array of large strings, or of large binaries if a text is not UTF-8."""

    def __init__(self, values: pa.Array) -> None:
        self._values = values
        _, offsets, data = values.buffers()
        self._offsets = np.zeros(1, np.int64)
        if len(values):
            self._offsets = np.frombuffer(offsets, np.int64, len(values) + 1, 8 * values.offset)
        self._data = memoryview(data) if data else memoryview(b"")

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Texts: ...
    def __getitem__(self, row: int | slice) -> str | Texts:
        if isinstance(row, slice):
            return Texts(self.values[row])
        row += len(self) if row < 0 else 0
        # A slice of a memoryview stays inside it, even with the offsets of a damaged file.
        begin, end = self._offsets.item(row), self._offsets.item(row + 1)
        return str(self._data[begin:end], "utf-8", "surrogateescape")

    def __reduce__(self) -> tuple[Any, ...]:
        return Texts, (self._values,)

    @cached_property
    def values(self) -> pa.Array:
        """Arrow's array, for Arrow's functions, which trust it; a DataError says that the file is damaged."""
        try:
            self._values.validate(full=True)
        except pa.ArrowInvalid as error:
            raise DataError(f"The manifest is damaged: {error}.", "Write it again.") from error
        return self._values

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] length of each text, bytes."""
        return np.diff(self._offsets)

    @property
    def content(self) -> memoryview:
        """The concatenated bytes of all texts."""
        return self._data[self._offsets[0] : self._offsets[-1]]


class TextsBuilder:
    """Builds a column of texts."""

    def __init__(self) -> None:
        self._data, self._offsets = bytearray(), array("q", [0])

    def extend(self, texts: Iterable[str]) -> None:
        """Append texts. The bytes of a file name that is not UTF-8 stay as on disk."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        self._offsets.extend(islice(accumulate(map(len, encoded), initial=len(self._data)), 1, None))
        self._data += b"".join(encoded)

    def finish(self) -> Texts:
        """The column."""
        buffers = [None, pa.py_buffer(self._offsets), pa.py_buffer(self._data)]
        values = pa.Array.from_buffers(pa.large_binary(), len(self._offsets) - 1, buffers)
        try:
            return Texts(values.cast(pa.large_string()))
        except pa.ArrowInvalid:
            return Texts(values)


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a list of videos, in memory or mapped from a file; [n] each.

    Attributes:
        id: Ids.
        path: Paths of files, absolute or relative to ``root``, or places in shards as JSON.
        label: int32, :data:`UNLABELLED` without a label.
        split: int8, index into :data:`SPLITS`.
        start: float64, seconds; NaN: the file's start.
        end: float64, seconds; NaN: the file's end.
        size: int64, size of each video in bytes when the list was written, :data:`ABSENT` without a file;
            None: not measured.
        root: Folder or URL of relative paths; "" if there are none.
        file: File from which the columns are mapped, with the hash in its header, or None.
        laid_over: Columns that replace those of the file.
    """

    id: Texts
    path: Texts
    label: NDArray[np.int32]
    split: NDArray[np.int8]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    size: NDArray[np.int64] | None = None
    root: str = ""
    file: tuple[str, str] | None = None
    laid_over: Mapping[str, SharedArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.label)

    def video(self, row: int) -> Video:
        """Make one row; a DataError says that its path is invalid."""
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
        """Measure the size of videos in bytes; :data:`ABSENT` without a file."""
        folder = f"{self.root}/"
        for row in rows:
            text = self.path[row]
            if text.startswith("{"):
                size = size_of(located(self.root, text))
            else:
                size = file_size(text if text.startswith("/") else folder + text)
            yield ABSENT if size is None else size

    def lay_over(self, name: str, values: NDArray[Any]) -> Columns:
        """Replace one column. The processes that map a list share the new column."""
        changes: dict[str, Any] = {name: values}
        return replace(self, **changes, laid_over={**self.laid_over, name: SharedArray(values)})

    def __reduce__(self) -> tuple[Any, ...]:
        if self.file is None:
            return Columns, (*vars(self).values(),)
        return _mapped_again, (self.file, self.root, self.laid_over)


def _mapped_again(file: tuple[str, str], root: str, laid_over: Mapping[str, SharedArray]) -> Columns:
    """In another process: map the same columns from the same file."""
    from ccl_cli.data.manifest.arrow_file import map_columns

    columns = map_columns(Path(file[0]))[0]
    if columns.file != file:
        raise DataError(f"The manifest '{file[0]}' was replaced while it was read.", "Start again.")
    changes: dict[str, Any] = {name: shared.values for name, shared in laid_over.items()}
    return replace(columns, root=root, laid_over=laid_over, **changes)


class ColumnsBuilder:
    """Builds columns; relative paths are below the folder ``root``."""

    def __init__(self, root: str = "") -> None:
        self.root, self._texts = root, (TextsBuilder(), TextsBuilder())
        self._numbers: list[array[Any]] = [array(code) for code in ("i", "b", "d", "d")]

    def extend(
        self,
        ids: Iterable[str],
        paths: Iterable[str],
        labels: Sequence[int | None],
        splits: Iterable[str],
        *times: Iterable[float | None],
    ) -> None:
        """Append rows, given as columns; the last two are starts and ends. The path in a shard is its JSON.

        Raises:
            ValueError, TypeError, AttributeError, OverflowError, KeyError: a value does not fit its column.
        """
        if any(label is not None and label < 0 for label in labels):
            raise ValueError("a negative label")
        numbers: list[Iterable[Any]] = [[UNLABELLED if label is None else label for label in labels]]
        numbers.append(map(SPLIT_CODES.__getitem__, splits))
        numbers += [[math.nan if at is None else at for at in column] for column in times]
        for texts, values in zip(self._texts, (ids, paths), strict=True):
            texts.extend(values)
        for column, entries in zip(self._numbers, numbers, strict=True):
            column.extend(entries)

    def add(self, videos: Sequence[Video]) -> None:
        """Append rows; a DataError names one with a value that does not fit its column."""
        try:
            self.extend(*zip(*map(_values, videos), strict=True))
        except (ValueError, TypeError, AttributeError, OverflowError, KeyError) as error:
            for video in videos if len(videos) > 1 else ():
                self.add([video])
            hint = "Labels are whole numbers from 0, times are seconds, and splits are train, val and test."
            raise DataError(f"A row of the data set is wrong: {videos[0]!r}: {error}.", hint) from error

    def finish(self) -> Columns:
        """The columns."""
        ids, paths = (texts.finish() for texts in self._texts)
        labels, splits, starts, ends = map(np.asarray, self._numbers)
        return Columns(ids, paths, labels, splits, starts, ends, root=self.root)


def located(root: str, text: str) -> Location:
    """Convert the text of the column of paths to a location; relative paths are below the root.

    Raises:
        ValueError, TypeError: the text is not a location, or the shard is elsewhere.
    """
    if not text.startswith("{"):
        return Path(posixpath.join(root, text))
    packed = from_plain(json.loads(text))
    if not (root and packed.shard):  # none for a video that could not be packed
        return replace(packed, shard=packed.shard or root)
    if is_url(root) and not re.fullmatch(r"[\w-]+\.tar", packed.shard):
        raise ValueError(f"'{packed.shard}' is not a shard of '{root}'")
    if ".." in packed.shard:
        raise ValueError(f"the shard '{packed.shard}' leaves the folder '{root}'")
    return packed if is_url(packed.shard) else replace(packed, shard=posixpath.join(root, packed.shard))


def path_text(path: str) -> str:
    """Convert a path to the text in its column, where only places in shards begin like JSON."""
    return f"./{path}" if path.startswith("{") else path


def _values(video: Video) -> tuple[str, str, int | None, str, float | None, float | None]:
    path = video.path
    text = json.dumps(to_plain(path)) if isinstance(path, Packed) else path_text(os.fspath(path))
    return video.id, text, video.label, video.split, video.start, video.end
