"""The terminal: results on stdout, logs and errors on stderr, plain lines where no terminal is."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO

from ccl_cli.errors import CclError, MultipleErrors, SystemSetupError
from ccl_cli.utils.text import printable, visible

_log = logging.getLogger("ccl")
LAUNCHED = "CCL_LAUNCHED"  # in the environment of processes that --num-processes has started
LOST_PEER = 69  # exit code by which such a process tells the launcher that it is not the one to blame
# What gloo, NCCL and torch's store say when the process at the other end of a connection is no more.
_LOST = (
    "connection closed by",
    "connection reset by peer",
    "connection was likely closed",
    "remote process exited",
    "broken pipe",
)
_ROOM = "Make room, and give the same command again."
_PERMIT = "Name a place where you may write, or have it opened to you."
# The next step when the system refuses a file.
_STEPS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EACCES: _PERMIT,
    errno.EPERM: _PERMIT,
    errno.EROFS: _PERMIT,
}
_RED, _YELLOW, _DIM, _BOLD, _END = "\033[1;31m", "\033[33m", "\033[2m", "\033[1m", "\033[0m"


class _LostPeer(SystemSetupError):
    def __init__(self) -> None:
        super().__init__("Another process of this run ended; its own message says why.")


@dataclass
class _Verbosity:
    level: int = logging.INFO
    debug: bool = False


_verbosity = _Verbosity()


def configure(quiet: bool = False, verbose: bool = False, debug: bool = False) -> None:
    """Set up the ``ccl`` logger. What an earlier call of the same process asked for stays asked for.

    Of several processes only the first logs; the others report errors.
    """
    if quiet:
        _verbosity.level = logging.ERROR
    if verbose or debug:
        _verbosity.level = logging.DEBUG
    _verbosity.debug = _verbosity.debug or debug
    _log.setLevel(_verbosity.level if first_process() else logging.ERROR)
    _log.propagate = False
    _log.handlers = [_handler()]
    if _verbosity.level > logging.DEBUG:  # the Hub's client writes two lines for each retry
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def first_process() -> bool:
    """Whether this process writes results: the launchers number them, before and after they are connected."""
    return os.environ.get("RANK", "0") == "0"


def plain(stream: TextIO) -> bool:
    """Whether to write plain lines: no terminal, a dumb one, or colours switched off."""
    return not stream.isatty() or os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))


def report(error: BaseException) -> int:
    """Show an error on stderr, as sentences; its traceback only with ``--debug``.

    Returns:
        The exit code of the process.
    """
    if _verbosity.debug:
        traceback.print_exception(error)
    failure = error if isinstance(error, CclError) else _unexpected(error)
    errors = failure.errors if isinstance(failure, MultipleErrors) else [failure]
    with suppress(OSError):  # stderr may be a file on a full disk: the exit code still tells
        for each in errors:
            print(_coloured(_begins(), _RED) + printable(each.message), file=sys.stderr)
            if each.hint:
                print(_coloured(f"  {printable(each.hint)}", _DIM), file=sys.stderr)
    if isinstance(failure, _LostPeer) and LAUNCHED in os.environ:
        return LOST_PEER
    return errors[0].exit_code


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout: ruled and wrapped on a terminal, aligned and whole in a file."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if plain(sys.stdout):
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        for row in [columns, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, style="cyan" if number == 0 else None, no_wrap=number == 0)
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    Console().print(table)


def bold(text: str) -> str:
    """The text, in bold letters on a terminal."""
    return text if plain(sys.stdout) else f"{_BOLD}{text}{_END}"


class Stdout:
    """Results that are written while a progress bar is shown.

    The bar stands in for stdout, so that lines on a terminal make room for it; but what it is given goes to
    stderr, where no results belong that are kept in a file.
    """

    def __init__(self) -> None:
        self._file = sys.stdout

    def write(self, text: str) -> None:
        """Write, and do not keep readers waiting."""
        file = sys.stdout if self._file.isatty() else self._file
        file.write(text)
        file.flush()


class Lines:
    """A table on stdout whose rows come one by one; its widths are known beforehand.

    On a terminal the first column is cut from the left until a row fits: paths differ at their ends.

    Args:
        columns: Their names.
        widths: Of what comes into each.
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
        """Print one row, the first one below the names of the columns."""
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


def _begins() -> str:
    # Other launchers show what every process says: the same mistake, once from each.
    if first_process() or LAUNCHED in os.environ:
        return "Error: "
    return f"Error (process {os.environ['RANK']}): "


def _lost_peer(error: BaseException, message: str) -> bool:
    connected = isinstance(error, RuntimeError) and "RANK" in os.environ
    return connected and any(words in message.lower() for words in _LOST)


def _unexpected(error: BaseException) -> CclError:
    message = " ".join(str(error).split()) or "no message"
    if isinstance(error, OSError) and error.strerror:
        where = f": '{error.filename}'" if error.filename else ""
        step = _STEPS.get(error.errno or 0, "--debug shows where it happened.")
        return SystemSetupError(f"{error.strerror}{where}.", step)
    if _lost_peer(error, message):
        return _LostPeer()
    if type(error).__name__ == "OutOfMemoryError":
        return SystemSetupError("The GPU's memory is full.", "Lower --batch-size.")
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
    # Looks sys.stderr up for each line: while a progress bar is shown, the bar stands in for it.
    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a log on a full disk loses lines, not the run
            print(self.format(record), file=sys.stderr, flush=True)


def _handler() -> logging.Handler:
    handler = _Stderr()
    handler.setFormatter(_Lines())
    return handler
