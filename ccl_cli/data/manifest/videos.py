"""A selection of rows from columns; a :class:`Video` is made when it is requested."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ccl_cli.data.manifest.columns import (
    SPLIT_CODES,
    UNLABELLED,
    Columns,
    ColumnsBuilder,
    Texts,
    TextsBuilder,
    Video,
    path_text,
)
from ccl_cli.utils.shared_array import SharedArray

_CHUNK = 1000  # rows that are converted to columns at once


class Videos(Sequence[Video]):
    """Selected rows of a list, in any order, as a sequence of :class:`Video`.

    When it is sent to another process, that process maps the file of the list and shares the row numbers.

    Attributes:
        columns: Columns of the whole list.
        numbers: [n] int32, numbers of the selected rows.
    """

    def __init__(self, columns: Columns, rows: range | SharedArray | None = None) -> None:
        self.columns = columns
        self._rows = range(len(columns)) if rows is None else rows

    @classmethod
    def of(cls, videos: Iterable[Video]) -> Videos:
        """Convert videos to columns; a DataError names one whose attribute has a wrong type."""
        if isinstance(videos, Videos):
            return videos
        builder, rows = ColumnsBuilder(), iter(videos)
        while chunk := list(islice(rows, _CHUNK)):
            builder.add(chunk)
        return cls(builder.finish())

    @property
    def numbers(self) -> NDArray[np.int32]:
        """[n] int32, numbers of the selected rows."""
        rows = self._rows
        return np.arange(rows.start, rows.stop, dtype=np.int32) if isinstance(rows, range) else rows.values

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Video: ...
    @overload
    def __getitem__(self, index: slice) -> Videos: ...
    def __getitem__(self, index: int | slice) -> Video | Videos:
        rows = self._rows
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self.columns.video(rows[index] if isinstance(rows, range) else rows.values.item(index))

    def __iter__(self) -> Iterator[Video]:
        rows = self._rows
        return map(self.columns.video, rows if isinstance(rows, range) else rows.values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def column(self, name: str) -> NDArray[Any]:
        """[n] values of a numeric column, see :class:`Columns`; not copied if the rows are consecutive."""
        rows = self._rows
        values: NDArray[Any] = getattr(self.columns, name)
        return values[rows.start : rows.stop] if isinstance(rows, range) else values[rows.values]

    def texts(self, name: str) -> Texts:
        """The column "id" or "path" of these rows."""
        values: pa.Array = getattr(self.columns, name).values
        rows = self._rows
        if isinstance(rows, range):
            return Texts(values.slice(rows.start, len(rows)))
        # pa.array imports pandas, which takes 0.2 s.
        buffers = [None, pa.py_buffer(rows.values)]
        return Texts(values.take(pa.Array.from_buffers(pa.int32(), len(rows), buffers)))

    @property
    def ids(self) -> Texts:
        """The ids."""
        return self.texts("id")

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """[n] mask of the labelled videos."""
        labelled: NDArray[np.bool_] = self.column("label") != UNLABELLED
        return labelled

    @property
    def packed(self) -> Videos:
        """The videos in shards."""
        rows = pc.indices_nonzero(pc.starts_with(self.columns.path.values, "{"))
        return self.where(np.isin(self.numbers, np.from_dlpack(rows)))

    def take(self, places: NDArray[Any]) -> Videos:
        """The videos at these indices ([m], from 0 to n - 1), in this order."""
        rows, places = self._rows, places.astype(np.int32)
        numbers = places + rows.start if isinstance(rows, range) else rows.values[places]
        if len(numbers) and numbers[-1] - numbers[0] + 1 == len(numbers) and (np.diff(numbers) == 1).all():
            return Videos(self.columns, range(int(numbers[0]), int(numbers[-1]) + 1))
        return Videos(self.columns, SharedArray(numbers))

    def where(self, mask: NDArray[np.bool_]) -> Videos:
        """The videos for which a mask ([n]) is true."""
        return self if mask.all() else self.take(np.flatnonzero(mask))

    def without(self, others: Videos) -> Videos:
        """All videos except others of the same list."""
        return self.where(~np.isin(self.numbers, others.numbers)) if len(others) else self

    def places_in(self, others: Videos) -> NDArray[np.int64]:
        """[n] index of each video in another selection of the same list; -1 for a video that is not in it."""
        places = np.full(len(self.columns), -1, np.int64)
        places[others.numbers] = np.arange(len(others))
        return places[self.numbers]

    def with_column(self, name: str, values: NDArray[Any]) -> Videos:
        """Replace the values ([n]) of a numeric column."""
        column = getattr(self.columns, name).copy()
        column[self.numbers] = values
        return Videos(self.columns.lay_over(name, column), self._rows)

    def below(self, root: str) -> Videos:
        """Write absolute paths below a folder relative to it, so that the videos can be moved."""
        if self.columns.root or not root:
            return self
        prefix, paths = os.path.join(root, ""), TextsBuilder()  # noqa: PTH118
        paths.extend(
            path_text(path.removeprefix(prefix)) if path[0] != "{" else path for path in self.columns.path
        )
        return Videos(replace(self.columns, path=paths.finish(), root=root), self._rows)

    def in_split(self, name: str) -> NDArray[np.bool_]:
        """[n] mask of the videos in a split; all False for an unknown split."""
        inside: NDArray[np.bool_] = self.column("split") == SPLIT_CODES.get(name, -1)
        return inside
