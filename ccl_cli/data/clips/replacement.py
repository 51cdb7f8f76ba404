"""Batches from processes that may die or hang over a video: they are replaced, and it is passed over."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from ccl_cli.data.clips.workers import SERVER, begin, is_loss, worker_options
from ccl_cli.errors import DataError
from ccl_cli.utils.files import lives

T = TypeVar("T")
PATIENCE = 300.0  # seconds for a window of a video, or for a video that is packed
_LOOK_SECONDS = 5.0
_LATER = 0.2  # seconds after which the processes that are gone are known to be
_DEATHS = 2  # over one video; a single one may come of a lack of memory, or of somebody who kills
_IN_VAIN = 3
_FREE = -1.0
_log = logging.getLogger("ccl")

_slot: Callable[[float], None] | None = None  # in a process that reads: what tells the row it is at
_fatal: Mapping[int, str] = {}


@contextmanager
def reading(row: int, name: object) -> Iterator[None]:
    """Around reading a video: should the process not survive it, that is the video it was.

    Args:
        row: Its place in the data set that the loader was made for.
        name: Its file.

    Raises:
        DataError: processes did not survive it.
    """
    if row in _fatal:
        raise DataError(f"'{name}' was not read: {_fatal[row]}.")
    if _slot is None:
        yield
        return
    _slot(row)
    try:
        yield
    finally:
        _slot(_FREE)


def replacing(
    make: Callable[[dict[str, Any]], DataLoader[T]], workers: int, modules: Iterable[str] = ()
) -> Iterator[T]:
    """All batches; where a process that reads ends or hangs, another loader goes on with what is to come.

    A video is passed over when two processes have ended over it, or when it takes longer than ``PATIENCE``.

    Args:
        make: A loader, with these options, of the batches that have not come yet.
        workers: As for :func:`worker_options`.
        modules: Likewise.

    Raises:
        RuntimeError, OSError, EOFError: what torch says when processes end again and again, over no video.
    """
    if not workers:
        yield from make(worker_options(0))
        return
    fatal: dict[int, str] = {}
    deaths: Counter[int] = Counter()
    in_vain = 0
    while True:
        slots = _Slots(workers)
        options = worker_options(workers, modules) | {
            "worker_init_fn": partial(_begin, slots.memory, dict(fatal)),
            "timeout": _LOOK_SECONDS,
        }
        batches = iter(make(options))
        try:
            while True:
                batch = _next(batches, slots)
                in_vain = 0
                yield batch
        except StopIteration:
            return
        except _Hung as hung:
            fatal[hung.row] = f"it took longer than {PATIENCE:g} s"
        except (RuntimeError, OSError, EOFError) as error:
            in_vain += 1
            if not is_loss(error) or in_vain > _IN_VAIN:
                raise
            deaths.update(slots.ended_at())
            for row in [row for row, count in deaths.items() if count >= _DEATHS and row not in fatal]:
                fatal[row], in_vain = "the processes that read it ended", 0
        del batches
        _log.warning("A process that read videos ended or was stuck; another one takes its place.")


def counted(
    make: Callable[[int, dict[str, Any]], DataLoader[T]], workers: int, modules: Iterable[str] = ()
) -> Iterator[T]:
    """As :func:`replacing`, where the number of batches that have come tells which ones have not."""
    came = 0

    def rest(options: dict[str, Any]) -> DataLoader[T]:
        return make(came, options)

    for came, batch in enumerate(replacing(rest, workers, modules), 1):  # noqa: B007  (`rest` looks at it)
        yield batch


class _Hung(Exception):
    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


class _Slots:
    """Which row each process is at, in memory that they share: (its number, row, since when)."""

    def __init__(self, workers: int) -> None:
        self.memory = SERVER.RawArray(ctypes.c_double, [_FREE] * 3 * workers)

    def ended_at(self) -> list[int]:
        """The rows over which processes have ended."""
        time.sleep(_LATER)
        return [int(row) for process, row, _ in self._reading() if not lives(int(process))]

    def end_stuck(self) -> None:
        """Kill a process that takes too long.

        Raises:
            _Hung: there is one.
        """
        for process, row, since in self._reading():
            if time.monotonic() - since > PATIENCE:
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
                raise _Hung(int(row))

    def _reading(self) -> list[tuple[float, float, float]]:
        values = iter(self.memory)
        return [each for each in zip(values, values, values, strict=True) if each[1] != _FREE]


def _next(batches: Iterator[T], slots: _Slots) -> T:
    while True:
        try:
            return next(batches)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
        slots.end_stuck()


def _begin(memory: Any, fatal: Mapping[int, str], worker: int) -> None:
    global _slot, _fatal

    def note(row: float) -> None:
        memory[3 * worker : 3 * worker + 3] = (os.getpid(), row, time.monotonic())

    begin(worker)
    _slot, _fatal = note, fatal
