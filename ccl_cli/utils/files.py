"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO
from zlib import crc32

from ccl_cli.errors import Interrupted, UsageError
from ccl_cli.utils.signals import Stopped

_START = secrets.token_hex(4)  # tells this process from an earlier one of the same number
_log = logging.getLogger("ccl")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which takes its place once it is complete and on disk.

    The folder is made if need be. On any error the temporary file is removed and ``path`` stays as it was; an
    OSError names ``path``.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):  # a write that fails names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(name: str) -> str:
    """How this process calls what becomes ``name``: as no other process does, on this or another machine."""
    return f".{name}.{_host()}-{os.getpid()}-{_START}.tmp"


@cache
def _host() -> str:
    """Eight hex digits that tell apart machines, and containers whose processes count from 1 each."""
    processes = 0
    with suppress(OSError):  # the numbers of which processes these are; there is no such file beside Linux
        processes = Path("/proc/self/ns/pid").stat().st_ino
    return f"{crc32(f'{socket.gethostname()} {processes}'.encode()):08x}"


def _temporary(path: Path) -> Path:
    """Where this process writes ``path``; what processes that are no more had begun there is removed.

    Only processes of this machine are known to be no more.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = re.compile(rf"\.{re.escape(path.name)}\.{_host()}-(\d+)-(\w+)\.tmp")
    with suppress(OSError):  # tidying is nothing to fail for
        for left in path.parent.iterdir():
            if (stray := begun.fullmatch(left.name)) and not _writes(int(stray[1]), stray[2]):
                _remove(left)
    return path.with_name(temporary_name(path.name))


def _writes(process: int, start: str) -> bool:
    """Whether a process of this machine may still write: it lives, and has not got our own number by now."""
    return start == _START if process == os.getpid() else lives(process)


@contextmanager
def growing_path(path: Path) -> Iterator[Path]:
    """:func:`atomic_path` for what grows row by row: told to stop, what was finished is kept beside ``path``.

    Raises:
        UsageError: ``path`` is a folder.
        Interrupted: stopped by a signal; says that the rows are in ``NAME.partial.SUFFIX``.
    """
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder.", "Name a file.")
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    stopped = ""
    with atomic_path(partial) as temporary:
        try:
            yield temporary
        except Stopped as signalled:
            stopped = signalled.name  # and no more: its frames hold the processes that read
    if stopped:
        raise Interrupted(f"Stopped by {stopped}.", f"What was finished is in '{partial}'.")
    partial.replace(path)


def remove_leftovers(*folders: Path) -> None:
    """Remove what processes that were killed had begun to write; only for who holds these folders."""
    for left in (path for folder in folders for path in folder.glob(".*.tmp")):
        _remove(left)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def lives(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        with suppress(PermissionError):  # it is somebody else's
            os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    # One that has ended keeps its number until it is asked for: for ever, where a container has no init.
    with suppress(OSError):
        stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
    return True


def refuse_used(folder: Path) -> None:
    """See that a folder is there to be made, or empty.

    Raises:
        UsageError: there is something.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file.", "Name a new folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"'{folder}' is not empty.", "Name another folder, or remove it.")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``, which takes its place once it is complete, or is removed.

    Raises:
        UsageError: there is something at ``path`` already.
    """
    refuse_used(path)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        yield temporary
        for written in filter(Path.is_file, temporary.rglob("*")):
            with written.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def changed_at(stat: os.stat_result) -> int:
    """When a file was changed, in nanoseconds, as 63 bits: all that a data base takes of a clock far off."""
    return stat.st_mtime_ns & (2**63 - 1)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def hold(path: Path, refusal: str, hint: str, *, wait: bool = False) -> IO[str]:
    """Open a lock file that one process may hold at a time; closing it, or any end of the process, frees it.

    On a file system without locks it is open to everyone, with a warning.

    Args:
        path: The file; its folder is made.
        refusal: What to say when another process holds it.
        hint: What to do about that.
        wait: Say so and wait for the other process instead.

    Raises:
        UsageError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if not wait:
            file.close()
            raise UsageError(refusal, hint) from error
        _log.info("%s %s", refusal, hint)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        _log.warning("'%s' cannot be locked: %s. Let one process at a time work there.", path, error.strerror)
    return file
