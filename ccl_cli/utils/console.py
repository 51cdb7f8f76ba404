"""Terminal output: results on stdout, logs and errors on stderr, and plain lines without a terminal."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO

from ccl_cli.errors import CclError, MultipleErrors, SystemSetupError
from ccl_cli.utils.text import printable, visible

_log = logging.getLogger("ccl")
LAUNCHED = "CCL_LAUNCHED"  # set in the environment of processes started by --num-processes
LOST_PEER = 69  # exit code of a process that only lost its connection to a failed one
# Messages of gloo, NCCL and torch's store when the process at the other end of a connection has ended.
_LOST = (
    "connection closed by",
    "connection reset by peer",
    "connection was likely closed",
    "remote process exited",
    "broken pipe",
)
_DISK_HINT = "Free some disk space, and run the same command again."
_PERMISSION_HINT = "Use a path that you can write to, or change its permissions."
# Hints for errors of the operating system.
_HINTS = {
    errno.ENOSPC: _DISK_HINT,
    errno.EDQUOT: _DISK_HINT,
    errno.EFBIG: _DISK_HINT,
    errno.EACCES: _PERMISSION_HINT,
    errno.EPERM: _PERMISSION_HINT,
    errno.EROFS: _PERMISSION_HINT,
}
_RED, _YELLOW, _DIM, _BOLD, _END = "\033[1;31m", "\033[33m", "\033[2m", "\033[1m", "\033[0m"


class _LostPeer(SystemSetupError):
    def __init__(self) -> None:
        super().__init__("Another process of this run failed; see its error message.")


@dataclass
class _Verbosity:
    level: int = logging.INFO
    debug: bool = False


_verbosity = _Verbosity()


def configure(quiet: bool = False, verbose: bool = False, debug: bool = False) -> None:
    """Configure the ``ccl`` logger. Settings of earlier calls in the same process are kept.

    Only the first of several processes logs; the others only report errors.
    """
    if quiet:
        _verbosity.level = logging.ERROR
    if verbose or debug:
        _verbosity.level = logging.DEBUG
    _verbosity.debug = _verbosity.debug or debug
    _log.setLevel(_verbosity.level if first_process() else logging.ERROR)
    _log.propagate = False
    _log.handlers = [_handler()]
    if _verbosity.level > logging.DEBUG:  # the Hub's client logs two lines per retry
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def first_process() -> bool:
    """Whether this is the first process, which writes results. Valid before the processes connect."""
    return os.environ.get("RANK", "0") == "0"


def plain(stream: TextIO) -> bool:
    """Whether to write plain lines: without a terminal, on a dumb one, or with colours disabled."""
    return not stream.isatty() or os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))


def report(error: BaseException) -> int:
    """Print an error to stderr; print its traceback only with ``--debug``.

    Returns:
        The exit code of the process.
    """
    if _verbosity.debug:
        traceback.print_exception(error)
    failure = error if isinstance(error, CclError) else _unexpected(error)
    errors = failure.errors if isinstance(failure, MultipleErrors) else [failure]
    with suppress(OSError):  # stderr may be a file on a full disk; the exit code still reports the error
        for each in errors:
            prefix = _prefix() if each.exit_code else ""
            message = _wrapped(prefix + printable(each.message))
            print(_coloured(prefix, _RED) + message.removeprefix(prefix), file=sys.stderr)
            if each.hint:
                print(_coloured(_wrapped(f"  {printable(each.hint)}", "  "), _DIM), file=sys.stderr)
    if isinstance(failure, _LostPeer) and LAUNCHED in os.environ:
        return LOST_PEER
    return errors[0].exit_code


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: with rules and wrapped cells on a terminal, aligned and unwrapped in a file."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if plain(sys.stdout):
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        for row in [columns, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, style="cyan" if number == 0 else None, no_wrap=number == 0)
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    Console().print(table)


def bold(text: str) -> str:
    """Format text in bold on a terminal."""
    return text if plain(sys.stdout) else f"{_BOLD}{text}{_END}"


class Stdout:
    """Stream for results that are written while a progress bar is shown.

    The bar replaces ``sys.stdout`` to keep its line at the bottom of a terminal, and writes to stderr. That
    is wrong for results that are redirected to a file.
    """

    def __init__(self) -> None:
        self._file = sys.stdout

    def write(self, text: str) -> None:
        """Write and flush."""
        file = sys.stdout if self._file.isatty() else self._file
        file.write(text)
        file.flush()


class Lines:
    """A table on stdout that is printed row by row, with column widths known in advance.

    On a terminal the first column is truncated from the left until a row fits, because paths differ at their
    ends.

    Args:
        columns: Names of the columns.
        widths: Widths of the columns' contents.
    """

    def __init__(self, columns: Sequence[str], widths: Sequence[int]) -> None:
        from rich.console import Console

        self._widths = [max(width, len(name)) for name, width in zip(columns, widths, strict=True)]
        self._plain, self._out = plain(sys.stdout), Stdout()
        if not self._plain:
            room = Console().width - sum(self._widths[1:]) - 2 * (len(columns) - 1)
            self._widths[0] = max(min(self._widths[0], room), 8)
        self._columns: Sequence[str] = columns

    def row(self, *cells: str) -> None:
        """Print one row; print the column names before the first row."""
        if self._columns:
            self._row(self._columns, _DIM)
            self._columns = ()
        self._row([visible(cell) for cell in cells], "")

    def _row(self, cells: Sequence[str], style: str) -> None:
        padded = [self._fitted(cell, width) for cell, width in zip(cells, self._widths, strict=True)]
        line = "  ".join(padded).rstrip()
        self._out.write((f"{style}{line}{_END}" if style and not self._plain else line) + "\n")

    def _fitted(self, cell: str, width: int) -> str:
        from rich.cells import cell_len

        if not self._plain and cell_len(cell) > width:
            while cell_len(cell) > width - 1:
                cell = cell[1:]
            cell = f"…{cell}"
        return cell + " " * (width - cell_len(cell))


def _prefix() -> str:
    # Other launchers show the output of every process, so the prefix tells copies of an error apart.
    if first_process() or LAUNCHED in os.environ:
        return "Error: "
    return f"Error (process {os.environ['RANK']}): "


def _wrapped(text: str, indent: str = "") -> str:
    """Wrap text at words on a terminal, except text of several lines, which contains commands to copy."""
    width = 0 if plain(sys.stderr) or "\n" in text else shutil.get_terminal_size((0, 0)).columns
    if not width:
        return text
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _lost_peer(error: BaseException, message: str) -> bool:
    connected = isinstance(error, RuntimeError) and "RANK" in os.environ
    return connected and any(words in message.lower() for words in _LOST)


def _unexpected(error: BaseException) -> CclError:
    message = " ".join(str(error).split()) or "no message"
    if isinstance(error, OSError) and error.strerror:
        where = f": '{error.filename}'" if error.filename else ""
        hint = _HINTS.get(error.errno or 0, "--debug shows the traceback.")
        return SystemSetupError(f"{error.strerror}{where}.", hint)
    if _lost_peer(error, message):
        return _LostPeer()
    if type(error).__name__ == "OutOfMemoryError":
        return SystemSetupError("The GPU's memory is full.", "Reduce --batch-size.")
    return CclError(f"Internal error: {type(error).__name__}: {message}", "--debug shows the traceback.")


def _coloured(text: str, code: str) -> str:
    return text if plain(sys.stderr) else f"{code}{text}{_END}"


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.capitalize()}: "
        message = printable(record.getMessage())
        if plain(sys.stderr):
            return f"{self.formatTime(record, '%H:%M:%S')} {level}{message}"
        colour = _YELLOW if record.levelno >= logging.WARNING else _DIM
        return (_coloured(level, colour) if level else "") + message


class _Stderr(logging.Handler):
    # Look up sys.stderr for every line, because a progress bar replaces it while it is shown.
    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a full disk must not end the run
            print(self.format(record), file=sys.stderr, flush=True)


def _handler() -> logging.Handler:
    handler = _Stderr()
    handler.setFormatter(_Lines())
    return handler
