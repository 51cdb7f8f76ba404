"""A table of videos: one row each, with a header ``path[,label][,split][,start][,end]``."""

from __future__ import annotations

import csv
import logging
import math
import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ccl_cli.data.manifest import Manifest, Videos
from ccl_cli.data.manifest.columns import make_columns, path_text
from ccl_cli.data.sources import SPLIT_NAMES, unique_ids
from ccl_cli.data.sources.about import described
from ccl_cli.errors import DataError

_COLUMNS = ("path", "label", "split", "start", "end")
_LAYOUT = "The first line names the columns: path, and optionally label,split,start,end (seconds)."
_log = logging.getLogger("ccl")


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    split: str
    start: float | None
    end: float | None


@described("A table of your videos: path[,label][,split][,start][,end].", "csv:my_videos.csv")
def load(location: str, *, root: str | None = None, delimiter: str | None = None) -> Manifest:
    """Read a table. Classes are its labels, sorted: as numbers where all are, else as text.

    A row whose label is empty is unlabelled, and every row is where there is no such column. Rows of one file
    with different start and end are different videos.

    Args:
        location: The file, UTF-8.
        root: Folder that relative paths start from; the table's own folder when None.
        delimiter: Between columns; a tab in ``.tsv`` files and a comma elsewhere when None.

    Raises:
        DataError: no such file, or a line that makes no sense; the sentence names the line.
    """
    table = Path(location).expanduser().absolute()
    base = Path(root).expanduser().absolute() if root is not None else table.parent
    mark = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter) or (
        "\t" if table.suffix.lower() == ".tsv" else ","
    )
    rows = _read(table, mark) if location else []
    if not rows:
        raise DataError(f"'{location}' lists no video." if location else "No table is named.", _LAYOUT)
    classes = _classes({row.label for row in rows} - {""})
    labels = {name: label for label, name in enumerate(classes)}
    columns = make_columns(
        _ids(table, base, rows),
        [posixpath.join(base, row.path) if ".." in row.path else path_text(row.path) for row in rows],
        [labels.get(row.label) for row in rows],
        [row.split for row in rows],
        [row.start for row in rows],
        [row.end for row in rows],
        root=str(base),
    )
    if unlabelled := sum(not row.label for row in rows):
        _log.info("'%s': %d of %d videos have no label.", table, unlabelled, len(rows))
    return Manifest(table.stem, classes, Videos(columns))


def _read(table: Path, delimiter: str) -> list[_Row]:
    if len(delimiter) != 1:
        raise DataError(
            f"'{delimiter}' is not one character.", "Write for example delimiter=; or delimiter=tab."
        )
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
            names = next(reader, [])
            _check_header(table, names)
            places = [names.index(name) if name in names else None for name in _COLUMNS]
            width = len(names)
            return [_row(table, reader.line_num, cells, width, places) for cells in reader if cells]
    except OSError as error:
        raise DataError(f"'{table}' cannot be read: {error.strerror}.", _LAYOUT) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"'{table}' is not a table of UTF-8 text: {error}.", _LAYOUT) from error


def _check_header(table: Path, names: Sequence[str]) -> None:
    if "path" not in names:
        raise DataError(f"'{table}' has no column 'path' (columns: {', '.join(names)}).", _LAYOUT)
    if len(set(names)) < len(names):
        raise DataError(f"'{table}' names a column twice.", _LAYOUT)
    unknown = [name for name in names if name not in _COLUMNS]
    if unknown:
        _log.info("'%s': columns not used: %s.", table, ", ".join(unknown))


def _row(table: Path, line: int, cells: list[str], width: int, places: Sequence[int | None]) -> _Row:
    if len(cells) != width:
        more = "more" if len(cells) > width else "fewer"
        raise DataError(f"'{table}', line {line}: {more} cells than the header.")
    texts = ["" if place is None else cells[place].strip() for place in places]
    path, label, name, begin, stop = texts
    if not path:
        raise DataError(f"'{table}', line {line}: the path is empty.")
    split = SPLIT_NAMES.get(name.lower() or "train")
    if split is None:
        raise DataError(
            f"'{table}', line {line}: '{name}' is not a split.", "Splits are train, val and test."
        )
    start = _seconds(table, line, "start", begin) if begin else None
    end = _seconds(table, line, "end", stop) if stop else None
    if end is not None and end <= (start or 0):
        raise DataError(f"'{table}', line {line}: the segment ends at {end:g} s, before it begins.")
    return _Row(line, path, label, split, start, end)


def _seconds(table: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise DataError(f"'{table}', line {line}: {name} '{text}' is not a number of seconds.")
    return value


def _classes(labels: set[str]) -> tuple[str, ...]:
    numbers = all(label.isascii() and label.isdigit() for label in labels)
    return tuple(sorted(labels, key=_value if numbers else None))


def _value(digits: str) -> tuple[int, str, str]:
    """Orders numbers by their value, however many digits they have."""
    plain = digits.lstrip("0")
    return len(plain), plain, digits


def _ids(table: Path, base: Path, rows: Sequence[_Row]) -> list[str]:
    """Ids from the paths; a file listed for several stretches gets them as a suffix."""
    names = [_relative(base, row.path) for row in rows]
    if len(set(names)) == len(names):
        return unique_ids(names)
    first_lines: dict[tuple[str, float | None, float | None], int] = {}
    for name, row in zip(names, rows, strict=True):
        first = first_lines.setdefault((name, row.start, row.end), row.line)
        if first != row.line:
            raise DataError(f"'{table}', line {row.line}: the same video as in line {first}.")
    stems = dict(zip(dict.fromkeys(names), unique_ids(list(dict.fromkeys(names))), strict=True))
    uses = Counter(names)
    return [
        stems[name]
        + (f"@{row.start or 0:g}-{'' if row.end is None else f'{row.end:g}'}" if uses[name] > 1 else "")
        for name, row in zip(names, rows, strict=True)
    ]


def _relative(base: Path, path: str) -> str:
    if path[0] not in "/." and path[-1] != "/" and "/." not in path and "//" not in path:
        return path  # most are: a tenth of the time
    if posixpath.isabs(path) or ".." in path:
        path = os.path.relpath(base / path, base)
    return posixpath.normpath(path)
