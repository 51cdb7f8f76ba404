"""Atomic files and folders, and lock files."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ccl_cli.errors import DataError, Interrupted, SystemSetupError, UsageError
from ccl_cli.utils.signals import Stopped

_log = logging.getLogger("ccl")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` after it is written and synced.

    Parent folders are created. On an error the temporary file is removed and ``path`` is unchanged; an
    OSError names ``path``.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):  # failed writes do not name a file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``, and rename it to ``path``; on an error it is removed.

    Raises:
        UsageError: ``path`` is a file, or a folder with files.
    """
    refuse_used(path)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        yield temporary
        for written in filter(Path.is_file, temporary.rglob("*")):
            _sync(written)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def growing_path(path: Path) -> Iterator[Path]:
    """:func:`atomic_path` for files that grow row by row: after a signal, finished rows are kept.

    Raises:
        UsageError: ``path`` is a folder.
        Interrupted: stopped by a signal; finished rows are in ``NAME.partial.SUFFIX``.
    """
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder.", "Give the path of a file.")
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    stopped = ""
    with atomic_path(partial) as temporary:
        try:
            yield temporary
        except Stopped as signalled:
            stopped = signalled.name  # keep the name only: the exception's frames keep loader workers alive
    if stopped:
        raise Interrupted(f"Stopped by {stopped}.", f"Finished results are in '{partial}'.")
    partial.replace(path)


def temporary_name(name: str) -> str:
    """Return a temporary name for ``name`` that is unique among processes and machines."""
    return f".{name}.{socket.gethostname()}-{os.getpid()}.tmp"


def _temporary(path: Path) -> Path:
    """Return this process's temporary path for ``path``, and remove those of ended processes.

    Only processes of this machine can be known to have ended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = re.compile(rf"\.{re.escape(path.name)}\.{re.escape(socket.gethostname())}-(\d+)\.tmp")
    with suppress(OSError):  # a failed cleanup is harmless
        for left in path.parent.iterdir():
            stray = begun.fullmatch(left.name)
            # A file of this process's own id is of an earlier process, such as one of a restarted container.
            if stray and (int(stray[1]) == os.getpid() or not _runs(int(stray[1]))):
                _remove(left)
    return path.with_name(temporary_name(path.name))


def _runs(process: int) -> bool:
    """Whether a process of this machine runs; a zombie, which its parent has not waited for, does not."""
    import psutil

    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def remove_leftovers(*folders: Path) -> None:
    """Remove temporary files of killed processes. The caller must hold the lock of these folders."""
    for left in (path for folder in folders for path in folder.glob(".*.tmp")):
        _remove(left)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def refuse_used(folder: Path) -> None:
    """Check that a folder does not exist or is empty.

    Raises:
        UsageError: the path is a file, or a folder with files.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file.", "Choose a new folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"'{folder}' is not empty.", "Choose another folder, or delete this one.")


def claim_folder(root: Path, stamp: str, what: str = "clips") -> None:
    """Mark a new or empty folder with a stamp, or check the stamp of an earlier call.

    Args:
        root: The folder; created if necessary. Names of unfinished files in it begin with a dot.
        stamp: Text with all settings that determine the files.
        what: Kind of files, for messages.

    Raises:
        DataError: the folder contains files of another stamp, or other files.
    """
    mark = root / f".{what}.json"
    if mark.is_file():
        if mark.read_text(encoding="utf-8") != stamp:
            raise DataError(f"'{root}' holds {what} of other options.", "Delete it or name another folder.")
    elif root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
        own = "; your own clips: --data folder:PATH" if what == "clips" else ""
        raise DataError(f"'{root}' is not empty.", f"Name another folder{own}.")
    else:
        _log.info("Writing %s to '%s'.", what, root)
        write_text(mark, stamp)


def lock_file(path: Path, refusal: str, hint: str, *, wait: bool = False, required: bool = False) -> IO[str]:
    """Lock a file exclusively until it is closed or the process ends.

    Args:
        path: Lock file; its parent folders are created.
        refusal: Message of the error if another process has the lock.
        hint: Hint of the error.
        wait: Log the message and wait for the lock instead.
        required: Whether to refuse a file system without locks, instead of a warning.

    Raises:
        UsageError: another process has the lock.
        SystemSetupError: locks are required, and the file system has none.
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
        if required:
            file.close()
            raise SystemSetupError(
                f"Files in '{path.parent}' cannot be locked, so machines cannot share the work in it.",
                "Set CCL_RUNS to another disk, or mount this one with locks (Lustre: -o flock).",
            ) from error
        _log.warning("'%s' cannot be locked (%s); run one process at a time here.", path, error.strerror)
    return file
