"""A table of videos, one row each, with a header ``path[,label][,split][,start][,end]``."""

from __future__ import annotations

import csv
import logging
import math
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ccl_cli.data.manifest import Manifest, Videos
from ccl_cli.data.manifest.columns import ColumnsBuilder, path_text
from ccl_cli.data.sources import SPLIT_NAMES, unique_ids
from ccl_cli.data.sources.about import described
from ccl_cli.errors import DataError

_COLUMNS = ("path", "label", "split", "start", "end")
_LAYOUT = "The first line names the columns: path, and optionally label,split,start,end (seconds)."
_CHUNK = 1000  # rows that become columns at once: more would not stay in the processor's cache
_log = logging.getLogger("ccl")


class _Table(NamedTuple):
    """Stripped cells by column, [n] each; the line of the file where each row ends."""

    path: Path
    lines: list[int]
    cells: dict[str, list[str]]

    def fault(self, row: int, reason: str, hint: str | None = None) -> DataError:
        return DataError(f"'{self.path}', line {self.lines[row]}: {reason}", hint)


@described("A table of your videos: path[,label][,split][,start][,end].", "csv:my_videos.csv")
def load(location: str, *, root: str | None = None, delimiter: str | None = None) -> Manifest:
    """Read a table. Classes are its labels, sorted as numbers if all are numbers, otherwise as text.

    A row with an empty label is unlabelled; without a label column all rows are. Rows of one file with
    different start and end are different videos.

    Args:
        location: The file, UTF-8.
        root: Folder of relative paths; None: the folder of the table.
        delimiter: Character between columns; None: a tab in ``.tsv`` files, otherwise a comma.

    Raises:
        DataError: the file is missing, or a line is invalid; the message names the line.
    """
    table = Path(location).expanduser().absolute()
    base = Path(root).expanduser().absolute() if root is not None else table.parent
    mark = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter) or (
        "\t" if table.suffix.lower() == ".tsv" else ","
    )
    rows = _read(table, mark) if location else None
    if rows is None or not rows.lines:
        raise DataError(f"'{location}' lists no video." if location else "No table is named.", _LAYOUT)
    paths, labels = rows.cells["path"], rows.cells["label"]
    if "" in paths:
        raise rows.fault(paths.index(""), "the path is empty.")
    classes = _classes(set(labels) - {""})
    numbers = {name: label for label, name in enumerate(classes)}
    splits, (starts, ends) = _splits(rows), _segments(rows)
    builder = ColumnsBuilder(str(base))
    places = (posixpath.join(base, path) if ".." in path else path_text(path) for path in paths)
    ids = _ids(rows, base, starts, ends)
    builder.extend(ids, places, [numbers.get(label) for label in labels], splits, starts, ends)
    if unlabelled := labels.count(""):
        _log.info("'%s': %d of %d videos have no label.", table, unlabelled, len(labels))
    return Manifest(table.stem, classes, Videos(builder.finish()))


def _read(table: Path, delimiter: str) -> _Table:
    if len(delimiter) != 1:
        raise DataError(
            f"'{delimiter}' is not one character.", "Write for example delimiter=; or delimiter=tab."
        )
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
            names = next(reader, [])
            _check_header(table, names)
            rows = ((reader.line_num, cells) for cells in reader if cells)
            return _by_column(_Table(table, [], {name: [] for name in _COLUMNS}), names, rows)
    except OSError as error:
        raise DataError(f"'{table}' cannot be read: {error.strerror}.", _LAYOUT) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"'{table}' is not a table of UTF-8 text: {error}.", _LAYOUT) from error


def _by_column(table: _Table, names: Sequence[str], rows: Iterator[tuple[int, list[str]]]) -> _Table:
    while chunk := list(islice(rows, _CHUNK)):
        for line, cells in chunk:
            table.lines.append(line)
            if len(cells) != len(names):
                more = "more" if len(cells) > len(names) else "fewer"
                raise table.fault(-1, f"{more} cells than the header.")
        columns = dict(zip(names, zip(*(cells for _, cells in chunk), strict=True), strict=True))
        for name, known in table.cells.items():
            known.extend(map(str.strip, columns.get(name) or [""] * len(chunk)))
    return table


def _check_header(table: Path, names: Sequence[str]) -> None:
    if "path" not in names:
        raise DataError(f"'{table}' has no column 'path' (columns: {', '.join(names)}).", _LAYOUT)
    if len(set(names)) < len(names):
        raise DataError(f"'{table}' names a column twice.", _LAYOUT)
    unknown = [name for name in names if name not in _COLUMNS]
    if unknown:
        _log.info("'%s': columns not used: %s.", table, ", ".join(unknown))


def _splits(table: _Table) -> list[str]:
    texts = table.cells["split"]
    known = {text: SPLIT_NAMES.get(text.lower() or "train") for text in set(texts)}
    splits = [split for text in texts if (split := known[text])]
    if len(splits) < len(texts):
        row = next(row for row, text in enumerate(texts) if not known[text])
        raise table.fault(row, f"'{texts[row]}' is not a split.", "Splits are train, val and test.")
    return splits


def _segments(table: _Table) -> tuple[list[float | None], list[float | None]]:
    starts, ends = (_seconds(table, name) for name in ("start", "end"))
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if end is not None and end <= (start or 0):
            raise table.fault(row, f"the segment ends at {end:g} s, before it begins.")
    return starts, ends


def _seconds(table: _Table, name: str) -> list[float | None]:
    if not any(table.cells[name]):
        return [None] * len(table.lines)
    values: list[float | None] = []
    for row, text in enumerate(table.cells[name]):
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not 0 <= value < math.inf:
            raise table.fault(row, f"{name} '{text}' is not a number of seconds.")
        values.append(value)
    return values


def _classes(labels: set[str]) -> tuple[str, ...]:
    numbers = all(label.isascii() and label.isdigit() for label in labels)
    return tuple(sorted(labels, key=_value if numbers else None))


def _value(digits: str) -> tuple[int, str, str]:
    """Sort key of a number of any length."""
    plain = digits.lstrip("0")
    return len(plain), plain, digits


def _ids(
    table: _Table, base: Path, starts: Sequence[float | None], ends: Sequence[float | None]
) -> list[str]:
    """Ids from the paths; if a file has several rows, with their segments as suffix."""
    names = [_relative(base, path) for path in table.cells["path"]]
    if len(set(names)) == len(names):
        return unique_ids(names)
    first_rows: dict[tuple[str, float | None, float | None], int] = {}
    for row, segment in enumerate(zip(names, starts, ends, strict=True)):
        if (first := first_rows.setdefault(segment, row)) != row:
            raise table.fault(row, f"the same video as in line {table.lines[first]}.")
    stems = dict(zip(dict.fromkeys(names), unique_ids(list(dict.fromkeys(names))), strict=True))
    uses = Counter(names)
    return [
        stems[name] + (f"@{start or 0:g}-{'' if end is None else f'{end:g}'}" if uses[name] > 1 else "")
        for name, start, end in zip(names, starts, ends, strict=True)
    ]


def _relative(base: Path, path: str) -> str:
    if path[0] not in "/." and path[-1] != "/" and "/." not in path and "//" not in path:
        return path  # nearly all paths; takes a tenth of the time
    if posixpath.isabs(path) or ".." in path:
        path = os.path.relpath(base / path, base)
    return posixpath.normpath(path)
