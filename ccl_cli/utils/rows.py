"""Records written one by one, as CSV, as JSON lines or as one JSON array, to stdout or to a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ccl_cli.errors import UsageError
from ccl_cli.utils.files import growing_path
from ccl_cli.utils.signals import Stopped
from ccl_cli.utils.text import visible

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """How records are written.

    Attributes:
        text: One record.
        begin: Before the first one.
        between: Between two.
        end: After the last one.
    """

    text: Callable[[Record], str]
    begin: str = ""
    between: str = ""
    end: str = ""


JSON = Form(json.dumps, "[\n", ",\n", "\n]\n")
JSON_LINES = Form(lambda record: json.dumps(record) + "\n")


def csv_form(columns: Sequence[str], rows: Callable[[Record], Iterable[Sequence[object]]]) -> Form:
    """Records as rows of CSV, with a header.

    Args:
        columns: Names.
        rows: One or more for each record.
    """
    return Form(lambda record: csv_text(rows(record)), csv_text([columns]))


class _Writes(Protocol):
    def write(self, text: str, /) -> object: ...


@contextmanager
def row_writer(file: _Writes, form: Form) -> Iterator[Callable[[Record], None]]:
    """A function that writes one record, in one piece; a stop signal still ends the file as its form does."""
    count = 0

    def add(record: Record) -> None:
        nonlocal count
        file.write((form.between if count else "") + form.text(record))
        count += 1

    file.write(form.begin)
    try:
        yield add
    except Stopped:
        file.write(form.end)
        raise
    file.write(form.end)


@contextmanager
def row_file(path: Path, csv: Form) -> Iterator[Callable[[Record], None]]:
    """A file of records, as its name ends: there when all are, or the finished ones when told to stop.

    Args:
        path: The file.
        csv: How records become CSV.

    Yields:
        What writes one record.

    Raises:
        UsageError: the name ends in something else.
    """
    forms = {".csv": csv, ".json": JSON, ".jsonl": JSON_LINES}
    form = forms.get(path.suffix.lower())
    if form is None:
        raise UsageError(
            f"'{path}' does not say in which format to write.", f"Let it end in {', '.join(forms)}."
        )
    with (
        growing_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
        row_writer(file, form) as add,
    ):
        yield add


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV.

    Text that a spreadsheet would take for a formula gets an apostrophe before it, and what cannot be printed
    is written as an escape.
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
