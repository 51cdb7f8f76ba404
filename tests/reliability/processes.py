"""Commands in processes of their own that are killed, stopped, or run where something is wrong; and what they leave."""

from __future__ import annotations

import atexit
import itertools
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.docs.warm import fork_instead

_PRELOAD = ["ccl_cli.bench.preload", "ccl_cli.report.tables.build", "ccl_cli.library.index", "ccl_cli.data.shards.write",
            "ccl_cli.data.checks.prepare", "ccl_plugins.precomputed", "ccl_plugins.small", "faiss", __name__]  # fmt: skip
_CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "shutil.rmtree",
    "sqlite3.connect",
}
_TIMES = {"clips_per_s", "data_wait", "seconds", "built", "mtime"}
_TEMPORARY = (".tmp", ".building", "-wal", "-shm", "-journal")
_numbers = itertools.count()
_server: int | None = None  # its process


def seeds(quick: int, long: int) -> pytest.MarkDecorator:
    """A test of many seeds, of which every change tries the first few."""
    more = [pytest.param(seed, marks=pytest.mark.long) for seed in range(quick, long)]
    return pytest.mark.parametrize("seed", [*range(quick), *more])


def warm_server() -> None:
    """Let the server that processes are forked from be one that has imported everything; it is started once."""
    global _server
    if _server is None or forkserver._forkserver._forkserver_pid != _server:
        forkserver._forkserver._stop()
        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOAD)
        forkserver._forkserver.ensure_running()
        _server = forkserver._forkserver._forkserver_pid


class Command:
    """``ccl`` in a process group of its own, forked from a server that has imported everything.

    It runs in a folder with its own cache and runs, after a call of ``first``. All its processes are killed before
    the write number ``die_before`` (from 1; 0: never).
    """

    def __init__(
        self, folder: Path, *words: object, die_before: int = 0, first: Callable[[], None] | None = None, **environment: object
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        self._output = folder.with_name(f"{folder.name}-{next(_numbers)}.out")
        warm_server()
        context = multiprocessing.get_context("forkserver")
        self._writes = context.Value("q", 0, lock=False)
        own = {"CCL_HOME": f"{folder}/home", "CCL_RUNS": f"{folder}/runs", "HF_HUB_OFFLINE": "1"}
        variables = {**os.environ, **own, **{key: str(value) for key, value in environment.items()}}
        arguments = (list(map(str, words)), folder, variables, self._output, self._writes, die_before, first)
        self._process = context.Process(target=_run, args=arguments)
        self._process.start()
        until(self._output.exists, self)  # it has no group of its own before that

    @property
    def text(self) -> str:
        """What it has printed so far, on both streams."""
        return self._output.read_text(errors="replace")

    @property
    def writes(self) -> int:
        """How often its processes have opened a file to write, or made, renamed or removed one."""
        return int(self._writes.value)

    def poll(self) -> int | None:
        """Its exit code, None if it runs."""
        return self._process.exitcode

    def wait(self, seconds: float) -> int | None:
        """Its exit code, -n if signal n ended it; None if it still runs after so many seconds."""
        self._process.join(seconds)
        return self._process.exitcode

    def send(self, number: int, *, group: bool) -> None:
        """Send a signal to it, or to its whole group as a terminal does."""
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self._process.pid or 0, number)

    def end(self) -> tuple[int, str]:
        """Wait for its end: exit code and output."""
        code = self.wait(600)
        if code is None:
            self.send(signal.SIGKILL, group=True)
            pytest.fail(f"still running: {self.text}")
        return code, self.text


def in_two_processes(folder: Path, *words: object, code: int = 0, **environment: object) -> list[str]:
    """Run ``ccl`` in two processes that work together; return what each printed.

    The first one ends with the exit code; the other may have nothing to complain of.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment |= {**group, "ACCELERATE_USE_CPU": "true"}
    both = [Command(folder, *words, RANK=rank, LOCAL_RANK=rank, **environment) for rank in (0, 1)]
    ends = [command.end() for command in both]
    assert ends[0][0] == code, ends
    assert ends[1][0] in (0, code), ends
    return [text for _, text in ends]


def _run(
    words: list[str],
    folder: Path,
    environment: dict[str, str],
    output: Path,
    writes: Any,
    die_before: int,
    first: Callable[[], None] | None,
) -> None:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGUSR1):  # the server ignores them
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    util.spawnv_passfds = fork_instead
    resource_tracker._resource_tracker.__init__()  # type: ignore[misc]  # one of its own
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    _count_writes(writes, die_before)
    from ccl_cli.__main__ import main

    if first:
        first()
    sys.argv = ["ccl", *words]
    code = main()
    atexit._run_exitfuncs()
    util._exit_function()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _count_writes(writes: Any, die_before: int) -> None:
    group, changing = os.getpid(), os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & changing
        if (opens and not str(arguments[0]).startswith("/dev")) or event in _CHANGES:
            writes.value += 1
            if writes.value == die_before:
                os.killpg(group, signal.SIGKILL)

    sys.addaudithook(hook)


def killed_at_random(start: Callable[..., Command], seed: int, seconds: float, writes: int) -> None:
    """Start a command, and kill it at a random moment of so many seconds or right before one of its writes."""
    rng = random.Random(seed)
    if rng.random() < 0.5:
        start(die_before=rng.randrange(1, writes + 1)).end()
        return
    command = start()
    command.wait(rng.uniform(0, seconds))
    command.send(signal.SIGKILL, group=rng.random() < 0.5)
    command.end()


def contents(folder: Path) -> dict[str, object]:
    """Every finished file below a folder as plain values without times; fails if one is not whole."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not _passing(path.relative_to(folder))
    )
    return {path.relative_to(folder).as_posix(): _READERS.get(path.suffix, Path.read_bytes)(path) for path in files}  # fmt: skip


def leftovers(folder: Path) -> list[Path]:
    """Temporary files, and folders of unfinished work."""
    return [path for path in folder.rglob("*") if path.name.endswith(_TEMPORARY)]


def _passing(path: Path) -> bool:
    """Whether a file is a log, a lock, a store of what other files hold, or part of unfinished work."""
    names = path.parts
    return path.name.startswith(("findings-", "log.txt")) or any(
        name.startswith(".") or name.endswith(_TEMPORARY) for name in names
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if key not in _TIMES}
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    if torch.is_tensor(value):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    return None if str(value).startswith("/") else repr(value)  # NaN equals itself; folders differ


def _library(path: Path) -> object:
    with sqlite3.connect(path) as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = base.execute("SELECT path, size, vector FROM video ORDER BY path").fetchall()
    base.close()
    return rows


def _faiss(path: Path) -> int:
    import faiss

    return int(faiss.read_index(str(path)).ntotal)


_READERS: dict[str, Callable[[Path], object]] = {
    ".pt": lambda path: _plain(torch.load(path, weights_only=True)),
    ".json": lambda path: _plain(json.loads(path.read_text())),
    ".jsonl": lambda path: [_plain(json.loads(line)) for line in path.read_text().splitlines()],
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".sqlite": _library,
    ".faiss": _faiss,
}


def refusal(code: int, text: str, *codes: int) -> str:
    """The one error sentence of a command that ended with one of these exit codes."""
    errors = [line for line in text.splitlines() if line.startswith("Error")]
    assert code in codes, f"exit code {code}: {text[-600:]}"
    assert len(errors) == 1, text[-600:]
    assert not re.search("Traceback|Internal error|Exception ignored", text), text[-600:]
    return errors[0]


def until(condition: Callable[[], bool], process: Any) -> None:
    """Wait for a condition while a process runs."""
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "too slow"
        time.sleep(0.002)
