"""Memory and open files of this process and all that it has started, while something runs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import NamedTuple


class Sample(NamedTuple):
    """One look. Memory is shared out among the processes that share it (PSS), so that the sum is what is taken.

    Pages of files are left out: libraries are shared with programs that come and go, and our part changes with them.
    """

    seconds: float
    done: int
    megabytes: float
    files: int


class Watch:
    """Looks every half second, from the beginning of its block to the end; ``done`` is set by who works."""

    def __init__(self, interval: float = 0.5) -> None:
        self.done, self.samples, self._interval, self._end = 0, list[Sample](), interval, threading.Event()

    def __enter__(self) -> Watch:
        self._begin = time.perf_counter()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._begin
        self._end.set()
        self._thread.join()
        if not self.samples:
            self.look()

    def _look(self) -> None:
        while not self._end.wait(self._interval):
            self.look()

    def look(self) -> None:
        megabytes, files = 0.0, 0
        for process in tree():
            megabytes += _pss(process)
            files += _files(process)
        self.samples.append(Sample(time.perf_counter() - self._begin, self.done, megabytes, files))

    def quarters(self) -> tuple[Sample, Sample]:
        """The medians of the second quarter of the samples and of the last one."""
        part = max(1, len(self.samples) // 4)
        parts = self.samples[part : 2 * part] or self.samples, self.samples[-part:]
        first, last = (Sample(*map(statistics.median, zip(*each, strict=True))) for each in parts)
        return first, last


def tree() -> list[int]:
    """This process and its descendants."""
    children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children[int(fields[1])].append(int(path.parent.name))
    found = [os.getpid()]
    for process in found:
        found += children[process]
    return found


def _pss(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) / 1024


def _files(process: int) -> int:
    try:
        return len(os.listdir(f"/proc/{process}/fd"))
    except OSError:
        return 0


class Ran(NamedTuple):
    """A command that has ended: its output, and what it took at most."""

    code: int
    out: str
    err: str
    seconds: float
    megabytes: float


def ccl(*arguments: str) -> Ran:
    """Run a command in a process of its own."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin, megabytes = time.perf_counter(), 0.0
        process = subprocess.Popen([sys.executable, "-m", "ccl_cli", *arguments], stdout=out, stderr=err)
        while process.poll() is None:
            megabytes = max(megabytes, peak(process.pid))  # what wait4 tells holds this process's own memory
            time.sleep(0.05)
        seconds = time.perf_counter() - begin
        out.seek(0), err.seek(0)
        return Ran(process.returncode, out.read(), err.read(), seconds, megabytes)


def peak(process: int) -> float:
    """The most memory that it has held, MB; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), default=0.0)
