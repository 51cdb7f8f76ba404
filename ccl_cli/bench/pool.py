"""Runs cells in processes of their own, one per free device; a broken one does not stop the rest."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import cast

from ccl_cli.bench.cell import Place, leave_error, run_cell
from ccl_cli.bench.matrix import Cell
from ccl_cli.errors import CclError, Interrupted
from ccl_cli.signals import handled_by

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
        ended: Called with the exit code when it has ended.

    Raises:
        Interrupted: told to stop; the cells that ran have saved their state.
    """
    os.environ["CCL_PRELOAD"] = ",".join(modules)
    multiprocessing.set_forkserver_preload(["ccl_cli.bench.preload"])
    context = multiprocessing.get_context("forkserver")
    waiting, free = deque(cells), list(where)
    running: Running = {}
    with _passing_signals_on(running) as stopped:
        while running or (waiting and not stopped):
            while waiting and free and not stopped:
                (cell, folder), place = waiting.popleft(), free.pop(0)
                folder.mkdir(parents=True, exist_ok=True)
                process = context.Process(target=run_cell, args=(cell, folder, place))
                process.start()
                running[process.sentinel] = process, cell, folder, place
                began(cell, place)
            for sentinel in wait(list(running), _LOOK_SECONDS):
                process, cell, folder, place = running.pop(cast(int, sentinel))
                free.append(place)
                ended(cell, folder, _code(process, folder, bool(stopped)))
    if stopped:
        raise Interrupted(
            f"Stopped by {signal.Signals(stopped[0]).name}; what is finished is kept, the rest was saved.",
            "The same command goes on.",
        )


def _code(process: ForkServerProcess, folder: Path, stopped: bool) -> int:
    """The exit code; a process that could not say why it ended gets its reason written for it."""
    process.join()
    code = process.exitcode or 0
    if code >= 0:
        return code
    if stopped:  # our own signal met it before training began or while it was evaluated
        return Interrupted.exit_code
    name = signal.Signals(-code).name
    leave_error(folder, CclError(f"The process was ended by {name}; memory may have run out."), 128 - code)
    return 128 - code


def _visible(number: int) -> str:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return listed.split(",")[number] if listed else str(number)


@contextmanager
def _passing_signals_on(
    running: dict[int, tuple[ForkServerProcess, Cell, Path, Place]],
) -> Iterator[list[int]]:
    """Pass signals on to all cells; yields those that came."""
    came: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for process, *_ in list(running.values()):
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)

    with handled_by(pass_on):
        yield came
