"""Commands in processes of their own, forked from one that has imported everything; and small disks."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from tests.docs.warm import FIRST

# Python that lets even root obey the permissions of files: it gives its privileges up.
OBEY = """
import ctypes
header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, none) == 0
"""
_PAGE = 4096  # bytes that a file system gives out at once
_KILLED = 99  # what the client of tests/docs/warm.py answers for a process that could not say how it ended


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Ccl:
    """Starts commands.

    Attributes:
        programs: Folder with the program ``ccl``.
        environment: Of every command.
    """

    programs: Path
    environment: Mapping[str, str]

    def start(
        self,
        *words: object,
        first: str = "",
        stdout: int | IO[str] = subprocess.PIPE,
        stderr: int | IO[str] = subprocess.PIPE,
        **environment: object,
    ) -> subprocess.Popen[str]:
        """Start a command; ``first`` is Python that its process runs before."""
        more = {name: str(value) for name, value in environment.items()}
        return subprocess.Popen(
            [str(self.programs / "ccl"), *map(str, words)],
            env={**os.environ, **self.environment, **more, FIRST: first},
            stdout=stdout,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="surrogateescape",
        )

    def __call__(self, *words: object, first: str = "", **environment: object) -> Ended:
        """Run a command to its end."""
        process = self.start(*words, first=first, **environment)
        out, err = process.communicate(timeout=300)
        return Ended(process.returncode, out, err)

    def right(self, *words: object, **environment: object) -> Ended:
        """Run a command that has to succeed."""
        ended = self(*words, **environment)
        assert ended.code == 0, ended.err
        return ended


def check_refusal(ended: Ended, *codes: int) -> None:
    """See that a command ended with one of these codes and said why in sentences."""
    assert ended.code != _KILLED, f"the process died: {ended.err[-400:]}"
    assert ended.code in codes, f"exit code {ended.code}: {ended.err[-400:]}"
    said = [line for line in ended.err.splitlines() if line.startswith("Error")]
    assert len(said) == 1, f"{len(said)} errors: {ended.err[-400:]}"
    for word in ("Traceback", "Internal error", "Exception ignored"):
        assert word not in ended.err, ended.err[-400:]


class Disk:
    """A file system of a few megabytes in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / ".ballast"

    def leave(self, free: int) -> None:
        """Fill it until so many bytes are free."""
        self.clear()
        there = os.statvfs(self.folder)
        size = there.f_bavail * there.f_frsize - free
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(_PAGE, size))

    def clear(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)

    @property
    def used(self) -> int:
        """Bytes."""
        there = os.statvfs(self.folder)
        return (there.f_blocks - there.f_bfree) * there.f_frsize

    def read_only(self, on: bool) -> None:
        """Refuse everything that would change it, or no more."""
        _mount("-o", f"remount,{'ro' if on else 'rw'}", str(self.folder))


@contextmanager
def small_disk(folder: Path, size: str = "32m") -> Iterator[Disk]:
    """A disk at a new folder; skips the test where nothing may be mounted."""
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={size},mode=777", "ccl-test", str(folder))
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("this user may not mount a file system")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder, by path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != ".ballast"
    }
