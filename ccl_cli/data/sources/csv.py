"""A table of videos, one row each, with a header ``path[,label][,split][,start][,end]``."""

from __future__ import annotations

import csv
import logging
import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ccl_cli.data.manifest import Manifest, Videos
from ccl_cli.data.manifest.columns import ColumnsBuilder, path_text
from ccl_cli.data.sources import SPLIT_NAMES, unique_ids
from ccl_cli.data.sources.about import described
from ccl_cli.errors import DataError

_COLUMNS = ("path", "label", "split", "start", "end")
_LAYOUT = "The first line names the columns: path, and optionally label,split,start,end (seconds)."
_CHUNK = 1000  # rows that become columns at once: more would not stay in the processor's cache
_log = logging.getLogger("ccl")


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
        DataError: the file is missing, or a row is invalid; the message names the row.
    """
    table = Path(location).expanduser().absolute()
    base = Path(root).expanduser().absolute() if root is not None else table.parent
    mark = delimiter or ("tab" if table.suffix.lower() == ".tsv" else ",")
    cells = _read(table, {"tab": "\t", "\\t": "\t"}.get(mark, mark))
    paths, labels = cells["path"], cells["label"]
    if not all(paths) or not paths:
        raise DataError(f"'{table}' lists no video, or one without a path.", _LAYOUT)
    classes = _classes(set(labels) - {""})
    numbers = {name: label for label, name in enumerate(classes)}
    splits = {text: SPLIT_NAMES.get(text.lower() or "train", text) for text in set(cells["split"])}
    starts, ends = (_seconds(table, cells[name]) for name in ("start", "end"))
    builder = ColumnsBuilder(str(base))
    try:
        builder.extend(
            _ids([_relative(base, path) for path in paths], starts, ends),
            map(path_text, paths),
            [numbers.get(label) for label in labels],
            [splits[text] for text in cells["split"]],
            starts,
            ends,
        )
    except KeyError as error:
        raise DataError(f"'{table}': {error} is not a split.", "Splits are train, val and test.") from error
    if unlabelled := labels.count(""):
        _log.info("'%s': %d of %d videos have no label.", table, unlabelled, len(labels))
    return Manifest(table.stem, classes, Videos(builder.finish()))


def _read(table: Path, delimiter: str) -> dict[str, list[str]]:
    """Stripped cells of the known columns, [n] each."""
    columns: dict[str, list[str]] = {name: [] for name in _COLUMNS}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
            names = next(reader, [])
            if "path" not in names or len(set(names)) < len(names):
                raise DataError(f"'{table}' has no or two columns 'path' ({', '.join(names)}).", _LAYOUT)
            if unknown := set(names) - set(_COLUMNS):
                _log.info("'%s': columns not used: %s.", table, ", ".join(sorted(unknown)))
            rows = filter(None, reader)
            while chunk := list(islice(rows, _CHUNK)):
                for cells in chunk:
                    if len(cells) != len(names):
                        raise DataError(f"'{table}': a row has {len(cells)} cells: {cells}.", _LAYOUT)
                parsed = dict(zip(names, zip(*chunk, strict=True), strict=True))
                for name, known in columns.items():
                    known.extend(map(str.strip, parsed.get(name) or [""] * len(chunk)))
    except OSError as error:
        raise DataError(f"'{table}' cannot be read: {error.strerror}.", _LAYOUT) from error
    except (csv.Error, UnicodeDecodeError, TypeError) as error:  # TypeError: a delimiter of two characters
        raise DataError(f"'{table}' is not a table of UTF-8 text: {error}.", _LAYOUT) from error
    return columns


def _seconds(table: Path, texts: Sequence[str]) -> list[float | None]:
    try:
        return [float(text) if text else None for text in texts]
    except ValueError as error:
        raise DataError(f"'{table}': {error}.", "Start and end are numbers of seconds.") from error


def _classes(labels: set[str]) -> tuple[str, ...]:
    if all(label.isascii() and label.isdigit() for label in labels):
        digits = max(map(len, labels), default=0)
        return tuple(sorted(labels, key=lambda label: (label.zfill(digits), label)))
    return tuple(sorted(labels))


def _ids(names: Sequence[str], starts: Sequence[float | None], ends: Sequence[float | None]) -> list[str]:
    """Ids from relative paths; if a file has several rows, with their segments as suffix."""
    uses = Counter(names)
    stems = dict(zip(uses, unique_ids(list(uses)), strict=True))
    return [
        f"{stems[name]}@{start or 0:g}-{'' if end is None else f'{end:g}'}" if uses[name] > 1 else stems[name]
        for name, start, end in zip(names, starts, ends, strict=True)
    ]


def _relative(base: Path, path: str) -> str:
    if path.startswith("/") or ".." in path:
        path = os.path.relpath(base / path, base)
    return posixpath.normpath(path)
