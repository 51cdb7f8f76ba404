"""Rows of a list of videos, each made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ccl_cli.data.manifest.columns import (
    CODES,
    UNLABELLED,
    Columns,
    Numbers,
    Texts,
    Video,
    columns_of,
    from_numpy,
    joined,
)
from ccl_cli.utils.shared_array import SharedArray

_CHUNK = 65_536  # objects that become columns at once


class Videos(Sequence[Video]):
    """Rows of a list, in any order. A :class:`Video` is made whenever one is asked for.

    Another process that gets one opens the list's file, and shares the row numbers.

    Attributes:
        columns: Of the whole list.
        numbers: [n] int32, rows of the columns.
    """

    def __init__(self, columns: Columns, rows: range | SharedArray | None = None) -> None:
        self.columns = columns
        self._rows = range(len(columns)) if rows is None else rows

    @classmethod
    def of(cls, videos: Iterable[Video]) -> Videos:
        """Any videos as columns.

        Raises:
            DataError: a row holds something else than its attributes should.
        """
        if isinstance(videos, Videos):
            return videos
        source, chunks = iter(videos), []
        while chunk := list(islice(source, _CHUNK)):
            chunks.append(columns_of(chunk))
        return cls(joined(chunks))

    @property
    def numbers(self) -> Numbers:
        """[n] int32, rows of the columns."""
        rows = self._rows
        return np.arange(rows.start, rows.stop, dtype=np.int32) if isinstance(rows, range) else rows.values

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Video: ...
    @overload
    def __getitem__(self, index: slice) -> Videos: ...
    def __getitem__(self, index: int | slice) -> Video | Videos:
        if isinstance(index, slice):
            return self.take(np.arange(len(self), dtype=np.int32)[index])
        return self.columns.video(self.row(index))

    def __iter__(self) -> Iterator[Video]:
        rows = self._rows
        return map(self.columns.video, rows if isinstance(rows, range) else rows.values)

    def row(self, index: int) -> int:
        """The row of the columns that stands at a place."""
        rows = self._rows
        return rows[index] if isinstance(rows, range) else rows.values.item(index)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} videos>"

    def column(self, name: str) -> NDArray[Any]:
        """[n] the values of a numeric column, see :class:`Columns`; no copy if the rows are consecutive."""
        return self._select(getattr(self.columns, name))

    def _select(self, values: NDArray[Any]) -> NDArray[Any]:
        rows = self._rows
        return values[rows.start : rows.stop] if isinstance(rows, range) else values[rows.values]

    def texts(self, name: str) -> Texts:
        """The texts "id" or "path" of these rows."""
        values: pa.Array = getattr(self.columns, name).values
        rows = self._rows
        if isinstance(rows, range):
            return Texts(values.slice(rows.start, len(rows)))
        return Texts(values.take(from_numpy(rows.values)))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """[n] bytes of each video, :data:`ABSENT` without a file: as a mapped list says, else as of now."""
        if self.columns.size is not None:
            return np.ascontiguousarray(self.column("size"))
        return np.fromiter(self.columns.measure(self.numbers), np.int64, len(self))

    @property
    def ids(self) -> Sequence[str]:
        """The ids, each made when asked for."""
        return _Ids(self)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """[n] which have a label."""
        labelled: NDArray[np.bool_] = self.column("label") != UNLABELLED
        return labelled

    @property
    def packed(self) -> NDArray[np.bool_]:
        """[n] which lie in a shard."""
        return self._select(self.columns.path.starting_with("{"))

    def take(self, places: Numbers) -> Videos:
        """The videos at some places ([m], each from 0 to n - 1), in their order."""
        rows = self._rows
        numbers = places + rows.start if isinstance(rows, range) else rows.values[places]
        if len(numbers) and numbers[-1] - numbers[0] + 1 == len(numbers) and (np.diff(numbers) == 1).all():
            return Videos(self.columns, range(int(numbers[0]), int(numbers[-1]) + 1))
        return Videos(self.columns, SharedArray(numbers.astype(np.int32)))

    def where(self, mask: NDArray[np.bool_]) -> Videos:
        """Those for which a mask ([n]) is true."""
        return self if mask.all() else self.take(np.flatnonzero(mask).astype(np.int32))

    def without(self, others: Videos) -> Videos:
        """These but for some others of the same list."""
        return self.where(~np.isin(self.numbers, others.numbers)) if len(others) else self

    def places_in(self, others: Videos) -> NDArray[np.int64]:
        """[n] at which place each of them stands in other rows of the same list, which contain them."""
        places = np.full(len(self.columns), -1, np.int64)
        places[others.numbers] = np.arange(len(others))
        return places[self.numbers]

    def relabelled(self, labels: NDArray[Any]) -> Videos:
        """The same with other labels, [n]."""
        return self._overlaid("label", labels)

    def moved(self, mask: NDArray[np.bool_], split: str) -> Videos:
        """The same with some of them ([n]) in another split."""
        return self._overlaid("split", np.where(mask, np.int8(CODES[split]), self.column("split")))

    def _overlaid(self, name: str, values: NDArray[Any]) -> Videos:
        column = getattr(self.columns, name).copy()
        column[self.numbers] = values
        return Videos(self.columns.lay_over(name, column), self._rows)

    def in_split(self, name: str) -> NDArray[np.bool_]:
        """[n] which are in a split; none is in an unknown one."""
        inside: NDArray[np.bool_] = self.column("split") == CODES.get(name, -1)
        return inside


class _Ids(Sequence[str]):
    def __init__(self, videos: Videos) -> None:
        self._videos = videos

    def __len__(self) -> int:
        return len(self._videos)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return self._videos[index].ids
        return self._videos.columns.id[self._videos.row(index)]

    def __iter__(self) -> Iterator[str]:
        return map(self._videos.columns.id.__getitem__, map(self._videos.row, range(len(self))))
