"""Commands that are killed: real processes, forked from a server that has imported everything.

So a trial costs what the command itself does, not the seconds that Python needs to import torch. What such a process
starts in its turn is forked too, where it would begin a new Python.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import mmap
import multiprocessing
import os
import shutil
import signal
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path

from tests.docs.warm import fork_instead

_PRELOAD = ["ccl_cli.bench.preload", "ccl_cli.report.table", "ccl_cli.search.index", "ccl_cli.data.shards.write",
            "ccl_cli.data.checks.prepare", "ccl_plugins.precomputed", "ccl_plugins.small", "faiss", __name__]  # fmt: skip
_WRITES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "shutil.rmtree",
    "sqlite3.connect",
}
_numbers = itertools.count()
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Command:
    """A command of ours that runs.

    Args:
        arguments: After ``ccl``.
        folder: Where it runs; ``home`` in it is its cache.
        before: Kills itself, and what it belongs to, right before this write, from 1; 0: never.
        small: Constants of modules that are made smaller, so that little data has many parts.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        before: int = 0,
        small: Mapping[str, int] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        beside = f"{folder.name}-{next(_numbers)}"
        self.said_in = folder.with_name(f"{beside}.said")
        self._number = folder.with_name(f"{beside}.writes")
        self.said_in.write_bytes(b"")
        self._number.write_bytes(bytes(16))
        environment = {**os.environ, "CCL_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
        multiprocessing.set_forkserver_preload(_PRELOAD)
        context = multiprocessing.get_context("forkserver")
        given = (
            list(arguments),
            str(folder),
            environment,
            str(self.said_in),
            str(self._number),
            before,
            small or {},
        )
        self.process = context.Process(target=_run, args=given)
        self.process.start()
        while not struct.unpack("qq", self._number.read_bytes())[1] and self.wait(0.002) is None:
            pass
        self.began = time.monotonic()

    @property
    def pid(self) -> int:
        """Its number, also of its group."""
        assert self.process.pid
        return self.process.pid

    def wait(self, seconds: float) -> int | None:
        """Its exit code, -n if signal n ended it; None if it still runs after so many seconds."""
        self.process.join(seconds)
        return self.process.exitcode

    @property
    def ended(self) -> float:
        """When its last word came, as far as it has ended: ``time.monotonic``."""
        return time.monotonic() - (time.time() - self.said_in.stat().st_mtime)

    def end(self, seconds: float = 900) -> tuple[int, str]:
        """Wait for its end: exit code, and all that it said."""
        code = self.wait(seconds)
        if code is None:
            self.kill(group=True)
            raise AssertionError(f"still running after {seconds:g} s: {self.said}")
        return code, self.said

    @property
    def said(self) -> str:
        """What it has said so far, on both streams."""
        return self.said_in.read_text(errors="replace")

    def send(self, number: int, *, group: bool) -> None:
        """Send it a signal; or to its whole group, as a terminal does and some schedulers do."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def kill(self, *, group: bool) -> None:
        """End it in the middle of whatever it does."""
        self.send(signal.SIGKILL, group=group)
        self.process.join()

    @property
    def writes(self) -> int:
        """How often it and its processes have opened a file to write, renamed, removed or made one."""
        return int(struct.unpack("qq", self._number.read_bytes())[0])


def fresh_server() -> None:
    """End a server that other tests have started: it has imported other things."""
    forkserver._forkserver._stop()


def left_running(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
    return found


def emptied(folder: Path) -> Path:
    """The folder, without anything in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _run(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    said: str,
    number: str,
    before: int,
    small: dict[str, int],
) -> None:
    """The process of a command."""
    os.setsid()
    for each in (signal.SIGTERM, signal.SIGUSR1):  # the server ignores them
        signal.signal(each, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    util.spawnv_passfds = fork_instead
    resource_tracker._resource_tracker.__init__()  # one of its own
    for name, value in small.items():
        module, _, constant = name.rpartition(".")
        setattr(sys.modules[module], constant, value)
    _count_writes(number, before)
    from ccl_cli.__main__ import main

    sys.argv = ["ccl", *arguments]
    code = main()
    atexit._run_exitfuncs()
    util._exit_function()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _count_writes(path: str, before: int) -> None:
    """Count the writes of this process and of those that it forks; before one of them kill them."""
    with open(path, "r+b") as file:
        memory = mmap.mmap(file.fileno(), 16)
    first = os.getpid()

    def look(event: str, given: tuple[object, ...]) -> None:
        if event == "open":
            writes = (
                isinstance(given[2], int) and given[2] & _CHANGES and not str(given[0]).startswith("/dev")
            )
        else:
            writes = event in _WRITES
        if writes:
            count = struct.unpack("q", memory[:8])[0] + 1
            memory[:8] = struct.pack("q", count)
            if count == before:
                os.kill(first, signal.SIGKILL)
                os.killpg(first, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    memory[8:] = struct.pack("q", 1)  # it has begun
