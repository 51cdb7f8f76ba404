"""Bounds of time, memory and disk space."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def bounded(seconds: float = 2, megabytes: float = 1500) -> Iterator[None]:
    """Fail if the block computes for longer or takes more memory; of address space it gets twice as much."""
    address_space = resource.getrlimit(resource.RLIMIT_AS)
    used, before, begin = int(1e6 * _memory("VmSize")), _memory("VmRSS"), time.process_time()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the memory starts anew
    resource.setrlimit(resource.RLIMIT_AS, (used + int(2e6 * megabytes), address_space[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, address_space)
    assert time.process_time() - begin < seconds
    assert _memory("VmHWM") - before < megabytes


def _memory(kind: str) -> float:
    """A figure of this process's memory in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1000 for line in lines if line.startswith(f"{kind}:"))


class Disk:
    """A file system of a few megabytes in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / ".ballast"

    def leave(self, free: int) -> None:
        """Fill it until so many bytes are free."""
        self._ballast.unlink(missing_ok=True)
        there = os.statvfs(self.folder)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(4096, there.f_bavail * there.f_frsize - free))

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
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk of 32 MB at a new folder; skips the test where nothing may be mounted."""
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", "size=32m", "ccl-test", str(folder))
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("this user may not mount a file system")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)
