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
from typing import IO, cast

from ccl_cli.config.recipe import Executor
from ccl_cli.errors import CclError, Interrupted, UsageError
from ccl_cli.executors.item import Device, run_item
from ccl_cli.executors.work import Events, Work, write_error
from ccl_cli.utils.files import lock_file
from ccl_cli.utils.processes import cores
from ccl_cli.utils.signals import blocked_signals, handled_by

_POLL_SECONDS = 0.5


def local_devices(jobs: int | None) -> list[Device]:
    """Return every GPU or, without GPUs, the CPU shared by ``jobs`` parallel items (default 1)."""
    if gpus := _gpus():
        # With more jobs than GPUs, several items share a GPU.
        numbers = [number % len(gpus) for number in range(jobs or len(gpus))]
        return [Device(f"gpu {number}", {"CUDA_VISIBLE_DEVICES": gpus[number]}) for number in numbers]
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
    lock: IO[str]
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
                lock.close()
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
            ended.lock.close()
            self.free.append(ended.device)
        for each in filter(self._is_late, self.running.values()):
            with suppress(ProcessLookupError):
                os.killpg(cast(int, each.process.pid), signal.SIGKILL)  # including its child processes

    def _is_late(self, item: _Running) -> bool:
        return 0 < self.seconds < time.monotonic() - item.began

    def _start(self, name: str, lock: IO[str]) -> None:
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
        code = ended.process.exitcode or 0
        if code < 0 and self._is_late(ended):
            reason = f"It took longer than {self.seconds:g} s."
        elif code < 0:
            reason = f"The process was ended by {signal.Signals(-code).name}; memory may have run out."
        elif not self.work.is_settled(ended.name):
            reason = f"The process ended with exit code {code} without an error message."
        else:
            return
        write_error(self.work.folder / ended.name, CclError(reason), 128 - code if code < 0 else code or 1)


def lock_item(folder: Path) -> IO[str] | None:
    """Lock an item until the file is closed or this process ends; None if another process has the lock."""
    try:
        return lock_file(folder.with_name(f".{folder.name}.lock"), "", "")
    except UsageError:
        return None


def _gpus() -> list[str]:
    """Return the name of each GPU in ``CUDA_VISIBLE_DEVICES``."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "":  # no GPUs; asking torch takes seconds
        return []
    import torch

    names = visible.split(",") if visible else map(str, range(torch.cuda.device_count()))
    return list(names)[: torch.cuda.device_count()]
