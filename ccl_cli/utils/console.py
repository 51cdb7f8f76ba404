"""Terminal output: results on stdout, logs and errors on stderr, and plain lines without a terminal."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
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
_LOST = re.compile(
    "connection (closed by|reset by peer|was likely closed)|remote process exited|broken pipe", re.IGNORECASE
)
_HINTS = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free some disk space, and run the same command again."
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "Use a path that you can write to, or change its permissions.",
    ),
}
_DEBUG_HINT = "--debug shows the traceback."
_RED, _YELLOW, _DIM, _BOLD, _END = "\033[1;31m", "\033[33m", "\033[2m", "\033[1m", "\033[0m"


class _LostPeer(SystemSetupError):
    pass


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
    _log.handlers = [_Stderr()]
    if _verbosity.level > logging.DEBUG:  # the Hub's client logs two lines per retry
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def first_process() -> bool:
    """Whether this is the first process, which writes results. Valid before the processes connect."""
    return os.environ.get("RANK", "0") == "0"


def plain(stream: TextIO) -> bool:
    """Whether to write plain lines: without a terminal, on a dumb one, or with colours disabled."""
    return not stream.isatty() or os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))


def report(error: BaseException) -> int:
    """Print an error to stderr, with its traceback if ``--debug`` was given, and return the exit code."""
    if _verbosity.debug:
        traceback.print_exception(error)
    failure = error if isinstance(error, CclError) else _unexpected(error)
    errors = failure.errors if isinstance(failure, MultipleErrors) else [failure]
    with suppress(OSError):  # stderr may be a file on a full disk; the exit code still reports the error
        for each in errors:
            prefix = _coloured(_prefix(), _RED) if each.exit_code else ""
            print(prefix + printable(each.message), file=sys.stderr)
            if each.hint:
                print(_coloured(f"  {printable(each.hint)}", _DIM), file=sys.stderr)
    if isinstance(failure, _LostPeer) and LAUNCHED in os.environ:
        return LOST_PEER
    return errors[0].exit_code


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: with rules and wrapped cells on a terminal, aligned and unwrapped in a file."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if plain(sys.stdout):
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        for row in [columns, *rows]:
            print_row(row, widths)
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


def print_row(cells: Sequence[str], widths: Sequence[int]) -> None:
    """Print one row of a table whose column widths are known in advance."""
    padded = (visible(cell).ljust(width) for cell, width in zip(cells, widths, strict=True))
    print("  ".join(padded).rstrip(), flush=True)


def bold(text: str) -> str:
    """Format text in bold on a terminal."""
    return text if plain(sys.stdout) else f"{_BOLD}{text}{_END}"


def _prefix() -> str:
    # Other launchers show the output of every process, so the prefix tells copies of an error apart.
    if first_process() or LAUNCHED in os.environ:
        return "Error: "
    return f"Error (process {os.environ['RANK']}): "


def _unexpected(error: BaseException) -> CclError:
    message = " ".join(str(error).split()) or "no message"
    if isinstance(error, OSError) and error.strerror:
        where = f": '{error.filename}'" if error.filename else ""
        return SystemSetupError(f"{error.strerror}{where}.", _HINTS.get(error.errno or 0, _DEBUG_HINT))
    if isinstance(error, RuntimeError) and "RANK" in os.environ and _LOST.search(message):
        return _LostPeer("Another process of this run failed; see its error message.")
    if type(error).__name__ == "OutOfMemoryError":
        return SystemSetupError("The GPU's memory is full.", "Reduce --batch-size.")
    return CclError(f"Internal error: {type(error).__name__}: {message}", _DEBUG_HINT)


def _coloured(text: str, code: str) -> str:
    return text if plain(sys.stderr) else f"{code}{text}{_END}"


class _Stderr(logging.Handler):
    """Print log lines to the current stderr, which a progress bar replaces while it is shown."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.capitalize()}: "
        message = printable(record.getMessage())
        if plain(sys.stderr):
            return f"{logging.Formatter().formatTime(record, '%H:%M:%S')} {level}{message}"
        colour = _YELLOW if record.levelno >= logging.WARNING else _DIM
        return (_coloured(level, colour) if level else "") + message

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a full disk must not end the run
            print(self.format(record), file=sys.stderr, flush=True)
