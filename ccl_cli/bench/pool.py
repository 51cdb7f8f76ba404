"""Runs cells in processes of their own, one per free device; a broken one does not stop the rest."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import cast

from ccl_cli.bench.cell import Place, leave_error, run_cell
from ccl_cli.bench.matrix import Cell
from ccl_cli.errors import CclError, Interrupted
from ccl_cli.utils.signals import handled_by, held_signals

# By the sentinel that tells that a process has ended.
Running = dict[int, tuple[ForkServerProcess, Cell, Path, Place]]
_LOOK_SECONDS = 0.5


def places(jobs: int | None) -> list[Place]:
    """Every GPU; without one the CPU, shared by ``jobs`` cells at once (default 1)."""
    import torch

    gpus = torch.cuda.device_count()
    if gpus:
        # With more jobs than GPUs several cells share one.
        return [
            Place(f"gpu {number % gpus}", {"CUDA_VISIBLE_DEVICES": _visible(number % gpus)})
            for number in range(jobs or gpus)
        ]
    count = jobs or 1
    threads = max(1, (os.cpu_count() or 1) // count) if count > 1 else None
    return [Place("cpu", threads=threads) for _ in range(count)]


def run_cells(
    cells: Iterable[tuple[Cell, Path]],
    where: Sequence[Place],
    modules: Iterable[str],
    *,
    began: Callable[[Cell, Place], None],
    ended: Callable[[Cell, Path, int], None],
) -> None:
    """Run every cell, as many at once as there are places.

    Args:
        cells: What to run, and each one's folder.
        where: Places; each takes one cell at a time.
        modules: What the cells' processes should have imported before they begin.
        began: Called when a cell begins.
        ended: Called with the exit code when it has ended, unless it was told to stop by us.

    Raises:
        Interrupted: told to stop; the cells that ran have saved their state.
    """
    os.environ["CCL_PRELOAD"] = ",".join(modules)
    multiprocessing.set_forkserver_preload(["ccl_cli.bench.preload"])
    waiting, free = deque(cells), list(where)
    running: Running = {}
    came: list[int] = []
    passed = 0
    with handled_by(lambda number, frame: came.append(number)):
        while running or (waiting and not came):
            while waiting and free and not came:
                (cell, folder), place = waiting.popleft(), free.pop(0)
                process = _start(cell, folder, place)
                running[process.sentinel] = process, cell, folder, place
                began(cell, place)
            # Not from the handler: a signal that came while a cell was being started is for that cell too.
            for number in came[passed:]:
                passed += 1
                _pass_on(number, running)
            for sentinel in wait(list(running), _LOOK_SECONDS):
                process, cell, folder, place = running.pop(cast(int, sentinel))
                free.append(place)
                process.join()
                if not came:
                    ended(cell, folder, _code(process, folder))
    if came:
        raise Interrupted(
            f"Stopped by {signal.Signals(came[0]).name}; what is finished is kept, the rest was saved.",
            "The same command goes on.",
        )


def _start(cell: Cell, folder: Path, place: Place) -> ForkServerProcess:
    folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("forkserver").Process(target=run_cell, args=(cell, folder, place))
    with held_signals():
        process.start()
    return process


def _pass_on(number: int, running: Running) -> None:
    for process, *_ in running.values():
        if process.pid is not None and process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _code(process: ForkServerProcess, folder: Path) -> int:
    """The exit code; a process that could not say why it ended gets its reason written for it."""
    code = process.exitcode or 0
    if code == Interrupted.exit_code:
        leave_error(folder, CclError("The process was told to stop, and not by the benchmark."), code)
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    leave_error(folder, CclError(f"The process was ended by {name}; memory may have run out."), 128 - code)
    return 128 - code


def _visible(number: int) -> str:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.split(",")[number] if listed else str(number)
