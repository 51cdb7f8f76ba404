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
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ccl_cli.data.video.storage import Location, Packed, file_size, from_plain, is_url, size_of, to_plain
from ccl_cli.errors import DataError
from ccl_cli.utils.shared_array import SharedArray

SPLITS = ("train", "val", "test")
UNLABELLED = -1
ABSENT = -1  # size of a missing video
CODES = {name: code for code, name in enumerate(SPLITS)}


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
        """Arrow's array, validated for Arrow's functions, which trust it.

        Raises:
            DataError: the file is damaged.
        """
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


class MappedFile(NamedTuple):
    """A file from which columns are mapped; ``identity`` distinguishes it from a replacement."""

    path: str
    identity: tuple[int, ...]


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
        file: File from which the columns are mapped, or None.
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
    file: MappedFile | None = None
    laid_over: Mapping[str, SharedArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.label)

    def video(self, row: int) -> Video:
        """Make one row.

        Raises:
            DataError: its path is invalid.
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


def _mapped_again(file: MappedFile, root: str, laid_over: Mapping[str, SharedArray]) -> Columns:
    """In another process: map the same columns from the same file."""
    from ccl_cli.data.manifest.arrow_file import map_columns

    columns = map_columns(Path(file.path))[0]
    if columns.file != file:
        raise DataError(f"The manifest '{file.path}' was replaced while it was read.", "Start again.")
    changes: dict[str, Any] = {name: shared.values for name, shared in laid_over.items()}
    return replace(columns, root=root, laid_over=laid_over, **changes)


class ColumnsBuilder:
    """Builds columns.

    Args:
        root: Folder of relative paths.
    """

    def __init__(self, root: str = "") -> None:
        self.root, self._ids, self._paths = root, TextsBuilder(), TextsBuilder()
        self._labels, self._splits = array("i"), array("b")
        self._starts, self._ends = array("d"), array("d")

    def extend(
        self,
        ids: Iterable[str],
        paths: Iterable[str],
        labels: Sequence[int | None],
        splits: Iterable[str],
        starts: Iterable[float | None],
        ends: Iterable[float | None],
    ) -> None:
        """Append rows, given as columns. The path of a packed video is its JSON.

        Raises:
            ValueError, TypeError, AttributeError, OverflowError, KeyError: a value does not fit its column.
        """
        if any(label is not None and label < 0 for label in labels):
            raise ValueError("a negative label")
        self._ids.extend(ids)
        self._paths.extend(paths)
        self._labels.extend([UNLABELLED if label is None else label for label in labels])
        self._splits.extend(map(CODES.__getitem__, splits))
        self._starts.extend([math.nan if at is None else at for at in starts])
        self._ends.extend([math.nan if at is None else at for at in ends])

    def add(self, videos: Sequence[Video]) -> None:
        """Append rows.

        Raises:
            DataError: a value of a row does not fit its column.
        """
        try:
            self.extend(*zip(*map(_values, videos), strict=True))
        except (ValueError, TypeError, AttributeError, OverflowError, KeyError) as error:
            for video in videos if len(videos) > 1 else ():
                self.add([video])
            wrong = f"unknown split {error}" if isinstance(error, KeyError) else error
            hint = "Correct the data source: labels are whole numbers from 0, starts and ends are seconds."
            raise DataError(f"A row of the data set is wrong: {videos[0]!r}: {wrong}.", hint) from error

    def finish(self) -> Columns:
        """The columns."""
        labels, splits = np.asarray(self._labels), np.asarray(self._splits)
        starts, ends = np.asarray(self._starts), np.asarray(self._ends)
        return Columns(self._ids.finish(), self._paths.finish(), labels, splits, starts, ends, root=self.root)


def located(root: str, text: str) -> Location:
    """Convert the text of the column of paths to a location; relative paths are below the root.

    Raises:
        ValueError, TypeError: the text is not a location, or its path leaves the root.
    """
    if text.startswith("{"):
        packed = from_plain(json.loads(text))
        return replace(packed, shard=_shard_address(root, packed.shard)) if root else packed
    if ".." in text and os.path.normpath(text).startswith(".."):
        raise ValueError(f"the path '{text}' leaves the folder '{root}'")
    return Path(posixpath.join(root, text))


def _shard_address(root: str, shard: str) -> str:
    if not shard:  # of a video that could not be packed
        return root
    if is_url(root) and not re.fullmatch(r"[\w-]+\.tar", shard):
        raise ValueError(f"'{shard}' is not a shard of '{root}'")
    if ".." in shard:
        raise ValueError(f"the shard '{shard}' leaves the folder '{root}'")
    return shard if is_url(shard) else posixpath.join(root, shard)


def path_text(path: str) -> str:
    """Convert a path to the text in its column, where only places in shards begin like JSON."""
    return f"./{path}" if path.startswith("{") else path


def location_text(location: Location) -> str:
    """Convert a location to the text in the column of paths.

    Raises:
        TypeError: the location is neither a path nor a place in a shard.
    """
    if isinstance(location, Packed):
        return json.dumps(to_plain(location))
    if not isinstance(location, Path):
        raise TypeError(f"the path {location!r} is neither a Path nor a place in a shard")
    return path_text(str(location))


def _values(video: Video) -> tuple[str, str, int | None, str, float | None, float | None]:
    return video.id, location_text(video.path), video.label, video.split, video.start, video.end
