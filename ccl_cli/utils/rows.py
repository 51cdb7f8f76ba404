"""Incremental writers for records: CSV, JSON lines or a JSON array, to stdout or to a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccl_cli.errors import UsageError
from ccl_cli.utils.files import growing_path
from ccl_cli.utils.signals import Stopped
from ccl_cli.utils.text import visible

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """Text format of a sequence of records.

    Attributes:
        text: Formats one record.
        begin: Text before the first record.
        between: Text between two records.
        end: Text after the last record.
    """

    text: Callable[[Record], str]
    begin: str = ""
    between: str = ""
    end: str = ""


JSON = Form(json.dumps, "[\n", ",\n", "\n]\n")
JSON_LINES = Form(lambda record: json.dumps(record) + "\n")


def csv_form(columns: Sequence[str], rows: Callable[[Record], Iterable[Sequence[object]]]) -> Form:
    """Create a CSV format with a header; ``rows`` converts one record to one or more rows."""
    return Form(lambda record: csv_text(rows(record)), csv_text([columns]))


@contextmanager
def row_writer(write: Callable[[str], object], form: Form) -> Iterator[Callable[[Record], None]]:
    """Yield a function that writes one record. After a stop signal the output is still well-formed."""
    between = ""

    def add(record: Record) -> None:
        nonlocal between
        write(between + form.text(record))
        between = form.between

    write(form.begin)
    try:
        yield add
    except Stopped:
        write(form.end)
        raise
    write(form.end)


@contextmanager
def row_file(path: Path, csv: Form) -> Iterator[Callable[[Record], None]]:
    """Yield a function that writes one record to a file, which appears when all records are written.

    Args:
        path: Output file, whose suffix selects the format.
        csv: CSV format of the records.

    Raises:
        UsageError: the suffix is not supported.
    """
    forms = {".csv": csv, ".json": JSON, ".jsonl": JSON_LINES}
    form = forms.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"The suffix of '{path}' is not supported.", f"Use {', '.join(forms)}.")
    with (
        growing_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
        row_writer(file.write, form) as add,
    ):
        yield add


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Format rows as CSV.

    Text that a spreadsheet would interpret as a formula is prefixed with an apostrophe, and unprintable
    characters are escaped.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return file.getvalue()


def _harmless(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = visible(cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
