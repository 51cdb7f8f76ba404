"""Work on many files in processes that may hang or crash over one of them: that one is lost, no other."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any, NamedTuple, TypeVar

from ccl_cli.data.workers import end_with_parent
from ccl_cli.errors import CclError, EnvironmentError_
from ccl_cli.signals import STOPPING

J = TypeVar("J")
R = TypeVar("R")
_AHEAD = 2  # jobs handed to a process: it never waits for the next one
_LOOK_SECONDS = 0.5
_START_SECONDS = 120.0


class Lost(NamedTuple):
    """A job without a result, and why."""

    reason: str


class _Process:
    """One process, the jobs it was handed, and since when it has been at the first of them."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("forkserver")
        self.pipe, theirs = context.Pipe()
        self.process: ForkServerProcess = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()
        self.jobs: deque[Any] = deque()
        self.ready, self.since = False, time.monotonic()

    def hand(self, job: Any) -> None:
        if not self.jobs and self.ready:
            self.since = time.monotonic()
        self.jobs.append(job)
        with suppress(OSError):  # it is no more, which reading from it will tell
            self.pipe.send(job)

    def receive(self) -> Any:
        """A result, or None when the process has only said that it is there."""
        answer = self.pipe.recv()
        self.since = time.monotonic()
        if self.ready:
            return answer
        self.ready = True
        return None

    def end(self) -> str:
        """End it, in whatever state it is; how it ended."""
        ended = not self.process.is_alive()
        self.process.kill()
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
        if not self.ready and ended:
            raise EnvironmentError_(
                "The processes that read videos cannot start.", "Try --workers 1; --debug shows more."
            )
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def run_each(
    jobs: Iterable[J],
    work: Callable[[J], R],
    *,
    workers: int,
    seconds: float,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[J, R | Lost]]:
    """Do every job in one of several processes, in the order in which they get done.

    Args:
        jobs: Taken as they are needed.
        work: A function of a module, called in the processes. What it raises is a job lost.
        workers: Number of processes.
        seconds: Time for one job; the process that takes longer is replaced, as is one that dies.
        stopped: Whether to leave off; asked twice a second.

    Raises:
        EnvironmentError_: a process cannot even start.
    """
    multiprocessing.set_forkserver_preload(["ccl_cli.data.look"])
    waiting, again = iter(jobs), deque[J]()
    processes: list[_Process] = []
    try:
        while not stopped():
            _hand_out(waiting, again, processes, work, workers)
            busy = {each.pipe: each for each in processes if each.jobs}
            if not busy:
                return
            for pipe in wait(list(busy), _LOOK_SECONDS):
                yield from _answer(busy[pipe], processes, again)  # type: ignore[index]
            for each in [each for each in processes if _overdue(each, seconds)]:
                each.end()
                yield each.jobs.popleft(), Lost(f"it was not read within {seconds:g} s")
                _replace(each, processes, again)
    finally:
        for each in processes:
            each.process.kill()
            each.process.join()
            each.pipe.close()


def _hand_out(
    jobs: Iterator[J], again: deque[J], processes: list[_Process], work: Callable[[J], R], workers: int
) -> None:
    """Keep every process supplied; one is started only when there is a job for it."""
    for ahead in range(_AHEAD):
        for number in range(workers):
            if number < len(processes) and len(processes[number].jobs) > ahead:
                continue
            try:
                job = again.popleft() if again else next(jobs)
            except StopIteration:
                return
            if number >= len(processes):
                processes.append(_Process(work))
            processes[number].hand(job)


def _answer(each: _Process, processes: list[_Process], again: deque[J]) -> Iterator[tuple[J, Any]]:
    try:
        while each.jobs and each.pipe.poll():
            was_ready = each.ready
            answer = each.receive()
            if was_ready:
                yield each.jobs.popleft(), answer
    except (EOFError, OSError):
        how = each.end()
        yield each.jobs.popleft(), Lost(f"the process that read it ended ({how})")
        _replace(each, processes, again)


def _replace(each: _Process, processes: list[_Process], again: deque[Any]) -> None:
    processes.remove(each)
    again.extend(each.jobs)


def _overdue(each: _Process, seconds: float) -> bool:
    limit = seconds if each.ready else max(seconds, _START_SECONDS)
    return bool(each.jobs) and time.monotonic() - each.since > limit


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    for number in STOPPING:  # whoever asked for the work decides when it ends
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    pipe.send(None)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            answer = work(job)
        except CclError as error:
            answer = Lost(error.message.rstrip("."))
        except Exception as error:
            answer = Lost(f"{type(error).__name__}: {error}")
        pipe.send(answer)
