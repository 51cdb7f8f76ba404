"""Run the cells of a benchmark on this machine: each in a process of its own, one per free device.

Other processes, here or on other machines, may run cells of the same benchmark. A cell is locked while it
runs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Protocol, cast

from filelock import FileLock, Timeout

from ccl_cli.bench.cell import Device, run_cell, write_error
from ccl_cli.bench.matrix import Cell
from ccl_cli.errors import CclError, Interrupted
from ccl_cli.utils.signals import handled_by, held_signals

_POLL_SECONDS = 0.5


class CellEvents(Protocol):
    """What an executor asks and tells its caller."""

    def settled(self, cell: Cell) -> bool:
        """Whether another process has finished the cell, or failed to, since the benchmark began."""

    def began(self, cell: Cell, device: Device) -> None:
        """A cell runs."""

    def ended(self, cell: Cell, exit_code: int) -> None:
        """A cell has ended by itself; 0 for a settled one too."""


def local_devices(jobs: int | None) -> list[Device]:
    """Every GPU; without one the CPU, shared by ``jobs`` cells at once (default 1)."""
    import torch

    gpus = torch.cuda.device_count()
    if gpus:
        # With more jobs than GPUs several cells share one.
        return [
            Device(f"gpu {number % gpus}", {"CUDA_VISIBLE_DEVICES": _visible(number % gpus)})
            for number in range(jobs or gpus)
        ]
    count = jobs or 1
    threads = max(1, (os.cpu_count() or 1) // count) if count > 1 else None
    return [Device("cpu", threads=threads) for _ in range(count)]


def run_locally(
    root: Path, cells: Iterable[Cell], devices: Sequence[Device], modules: Iterable[str], events: CellEvents
) -> None:
    """Run every cell, as many at once as there are devices, and wait for those that other processes run.

    Args:
        root: The benchmark's folder.
        cells: What to run.
        devices: Each takes one cell at a time.
        modules: What the cells' processes import before they begin.
        events: Hears of every cell, until a signal stops the benchmark.

    Raises:
        Interrupted: a signal stopped the benchmark; the cells that ran have saved their state.
    """
    os.environ["CCL_PRELOAD"] = ",".join(modules)
    multiprocessing.set_forkserver_preload(["ccl_cli.bench.preload"])
    pool = _Pool(root, events, deque(cells), list(devices))
    with handled_by(lambda number, frame: pool.signals.append(number)):
        forwarded = 0
        while pool.running or (pool.waiting and not pool.signals):
            pool.start_cells()
            # Not from the handler: a signal that came while a cell was being started is for that cell too.
            for number in pool.signals[forwarded:]:
                forwarded += 1
                pool.forward(number)
            pool.wait()
    if pool.signals:
        name = signal.Signals(pool.signals[0]).name
        raise Interrupted(
            f"Stopped by {name}; what is finished is kept, the rest was saved.",
            "The same command goes on.",
        )


@dataclass(frozen=True)
class _Running:
    process: ForkServerProcess
    cell: Cell
    device: Device
    lock: FileLock


@dataclass
class _Pool:
    """Cells that wait and cells that run; these by the sentinel of their process."""

    root: Path
    events: CellEvents
    waiting: deque[Cell]
    free: list[Device]
    running: dict[int, _Running] = field(default_factory=dict)
    signals: list[int] = field(default_factory=list)

    def start_cells(self) -> None:
        """Start as many waiting cells as there are free devices; one that another process runs waits on."""
        for _ in range(len(self.waiting)):
            if not self.free or self.signals:
                return
            cell = self.waiting.popleft()
            lock = lock_cell(self.root / cell.folder)
            if lock is None:
                self.waiting.append(cell)
            elif self.events.settled(cell):
                lock.release()
                self.events.ended(cell, 0)
            else:
                self._start(cell, lock)

    def forward(self, number: int) -> None:
        """Send a signal to every cell that runs."""
        for each in self.running.values():
            if each.process.pid is not None and each.process.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(each.process.pid, number)

    def wait(self) -> None:
        """Wait until a cell ends, or a moment."""
        for sentinel in wait(list(self.running), _POLL_SECONDS):
            ended = self.running.pop(cast(int, sentinel))
            ended.process.join()
            if not self.signals:  # a cell that a signal to the benchmark stopped has not failed
                code = _exit_code(ended.process, self.root / ended.cell.folder)
                self.events.ended(ended.cell, code)
            ended.lock.release()
            self.free.append(ended.device)

    def _start(self, cell: Cell, lock: FileLock) -> None:
        folder, device = self.root / cell.folder, self.free.pop(0)
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=run_cell, args=(cell, folder, device))
        with held_signals():
            process.start()
        self.running[process.sentinel] = _Running(process, cell, device, lock)
        self.events.began(cell, device)


def lock_cell(folder: Path) -> FileLock | None:
    """Lock a cell until the lock is released or this process ends; None: another process has locked it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _exit_code(process: ForkServerProcess, folder: Path) -> int:
    """The exit code; for a process that could not write why it ended, the reason is written."""
    code = process.exitcode or 0
    if code == Interrupted.exit_code:
        write_error(folder, CclError("The process was stopped, and not by the benchmark."), code)
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    write_error(folder, CclError(f"The process was ended by {name}; memory may have run out."), 128 - code)
    return 128 - code


def _visible(number: int) -> str:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.split(",")[number] if listed else str(number)
