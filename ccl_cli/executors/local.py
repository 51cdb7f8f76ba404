"""Local executor: run each item in its own process, one per free device.

Other processes, here or on other machines, may run items of the same work. An item is locked while it runs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from ccl_cli.config.recipe import Executor
from ccl_cli.errors import CclError, Interrupted, SystemSetupError
from ccl_cli.executors.item import Device, run_item
from ccl_cli.executors.work import Events, Work, write_error
from ccl_cli.utils.processes import cores
from ccl_cli.utils.signals import blocked_signals, handled_by

_POLL_SECONDS = 0.5


def local_devices(jobs: int | None) -> list[Device]:
    """Return every GPU or, without GPUs, the CPU shared by ``jobs`` parallel items (default 1)."""
    gpus = _gpus()
    if gpus:
        # With more jobs than GPUs, several items share a GPU.
        return [
            Device(f"gpu {number % gpus}", {"CUDA_VISIBLE_DEVICES": _visible(number % gpus)})
            for number in range(jobs or gpus)
        ]
    count = jobs or 1
    threads = max(1, cores() // count) if count > 1 else None
    return [Device("cpu", threads=threads) for _ in range(count)]


def run(work: Work, settings: Executor, events: Events) -> dict[str, str]:
    """Run all items, one per device at a time, and wait for items of other processes.

    Args:
        work: Work items.
        settings: Settings; uses ``jobs`` and ``seconds``.
        events: Receives the events of all items until a signal stops the work.

    Returns:
        An empty dict: failed items have written their reason to their folder.

    Raises:
        Interrupted: stopped by a signal; running items were asked to save their state.
        SystemSetupError: the file system does not support locks.
    """
    os.environ["CCL_PRELOAD"] = ",".join(work.modules)
    multiprocessing.set_forkserver_preload(["ccl_cli.executors.preload"])
    pool = _Pool(work, events, local_devices(settings.jobs), settings.seconds, deque(work.items))
    with handled_by(lambda number, frame: pool.signals.append(number)):
        forwarded = 0
        while pool.running or (pool.waiting and not pool.signals):
            pool.start_items()
            # Forward signals here and not in the handler, so that an item that was just being started gets
            # them too.
            for number in pool.signals[forwarded:]:
                forwarded += 1
                pool.forward(number)
            pool.wait()
    if pool.signals:
        raise interrupted(pool.signals[0])
    return {}


def interrupted(number: int) -> Interrupted:
    """Return the error of work that was stopped by a signal."""
    name = signal.Signals(number).name
    return Interrupted(
        f"Stopped by {name}; finished items are kept, and running items have saved their state.",
        "Run the same command to continue.",
    )


@dataclass(frozen=True)
class _Running:
    process: ForkServerProcess
    name: str
    device: Device
    lock: FileLock
    began: float = field(default_factory=time.monotonic)


@dataclass
class _Pool:
    """Waiting and running items; running items by the sentinel of their process."""

    work: Work
    events: Events
    free: list[Device]
    seconds: float
    waiting: deque[str]
    running: dict[int, _Running] = field(default_factory=dict)
    signals: list[int] = field(default_factory=list)

    def start_items(self) -> None:
        """Start waiting items on the free devices, except items that are locked by other processes."""
        for _ in range(len(self.waiting)):
            if not self.free or self.signals:
                return
            name = self.waiting.popleft()
            lock = lock_item(self.work.folder / name)
            if lock is None:
                self.waiting.append(name)
            elif self.work.is_settled(name):
                lock.release()
                self.events.ended(name)
            else:
                self._start(name, lock)

    def forward(self, number: int) -> None:
        """Send a signal to every running item."""
        for each in self.running.values():
            if each.process.pid is not None and each.process.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(each.process.pid, number)

    def wait(self) -> None:
        """Wait until an item ends or a timeout passes; kill items that exceed the time limit."""
        for sentinel in wait(list(self.running), _POLL_SECONDS):
            ended = self.running.pop(cast(int, sentinel))
            ended.process.join()
            if not self.signals:  # an item that was stopped by a signal to the executor has not failed
                self._note(ended)
                self.events.ended(ended.name)
            ended.lock.release()
            self.free.append(ended.device)
        for each in self.running.values():
            if self.seconds and time.monotonic() - each.began > self.seconds and each.process.pid:
                with suppress(ProcessLookupError):
                    os.killpg(each.process.pid, signal.SIGKILL)  # including its child processes

    def _start(self, name: str, lock: FileLock) -> None:
        folder, device = self.work.folder / name, self.free.pop(0)
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("forkserver")
        arguments = (self.work.function, self.work.items[name], folder, device)
        process = context.Process(target=run_item, args=arguments)
        with blocked_signals():
            process.start()
        self.running[process.sentinel] = _Running(process, name, device, lock)
        self.events.began(name, device.name)

    def _note(self, ended: _Running) -> None:
        """Write the reason of a failure that the process itself could not write."""
        code, folder = ended.process.exitcode or 0, self.work.folder / ended.name
        if code == Interrupted.exit_code:
            _write(folder, "The process was stopped by an external signal.", code)
        elif code < 0 and self.seconds and time.monotonic() - ended.began > self.seconds:
            _write(folder, f"It took longer than {self.seconds:g} s.", 128 - code)
        elif code < 0:
            name = signal.Signals(-code).name
            _write(folder, f"The process was ended by {name}; memory may have run out.", 128 - code)
        elif not self.work.is_settled(ended.name):
            _write(folder, f"The process ended with exit code {code} without an error message.", code or 1)


def lock_item(folder: Path) -> FileLock | None:
    """Lock an item until the lock is closed or this process ends; None if another process has the lock.

    Raises:
        SystemSetupError: the file system does not support locks.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except NotImplementedError as error:
        raise SystemSetupError(
            f"Files in '{folder.parent}' cannot be locked, so machines cannot share the work in it.",
            "Set CCL_RUNS to another disk, or mount this one with locks (Lustre: -o flock).",
        ) from error
    return lock


def _write(folder: Path, message: str, code: int) -> None:
    write_error(folder, CclError(message), code)


def _gpus() -> int:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # no GPUs; asking torch takes seconds
        return 0
    import torch

    return torch.cuda.device_count()


def _visible(number: int) -> str:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.split(",")[number] if listed else str(number)
