"""Work on many files in processes that may hang or crash over one of them: that one is lost, no other.

A job whose process dies gets a second one: the first may have been killed for want of memory, or by somebody.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar, cast

from ccl_cli.data.clips.workers import SERVER, end_with_parent
from ccl_cli.errors import CclError, EnvironmentError_
from ccl_cli.utils.signals import STOPPING

J = TypeVar("J")
R = TypeVar("R")
_LOOK_SECONDS = 0.5
_START_SECONDS = 600.0
_STARTS = 3  # in vain, after which no process can start
_DEATHS = 2  # over a job, which is then lost


class Lost(NamedTuple):
    """A job without a result, and why."""

    reason: str


class _Process:
    """One process, the job it is at, and since when."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.pipe, theirs = SERVER.Pipe()
        self.process = SERVER.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.deaths = 0
        self.job: Any = None
        self.since = time.monotonic()

    def begin(self, job: Any, deaths: int = 0) -> None:
        """Send it a job, over which so many processes have died."""
        self.job, self.deaths, self.since = job, deaths, time.monotonic()
        with suppress(OSError):  # it is no more, as reading from it will tell
            self.pipe.send(job)

    def result(self) -> Any:
        """What it sends for its job; None, first of all, when it has started."""
        answer = self.pipe.recv()
        self.ready, self.since = True, time.monotonic()
        return answer

    def overdue(self, seconds: float) -> bool:
        return time.monotonic() - self.since > (seconds if self.ready else _START_SECONDS)

    def end(self) -> str:
        """End it, in whatever state it is; how it ended."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
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
        seconds: Time for one job; the process that takes longer is replaced, and its job is lost.
        stopped: Whether to leave off; asked twice a second.

    Raises:
        EnvironmentError_: a process cannot even start.
    """
    multiprocessing.set_forkserver_preload(["ccl_cli.data.checks.inspect"])
    waiting = iter(jobs)
    free: list[_Process] = []
    busy: dict[Connection, _Process] = {}
    try:
        while not stopped():
            while len(busy) < workers:
                try:
                    job = next(waiting)
                except StopIteration:
                    break
                each = free.pop() if free else _Process(work)
                busy[each.pipe] = each
                each.begin(job)
            if not busy:
                return
            for pipe in wait(list(busy), _LOOK_SECONDS):
                yield from _finished(busy, free, cast(Connection, pipe), work)
            for each in [each for each in busy.values() if each.overdue(seconds)]:
                if not each.ready:
                    raise _cannot_start(f"not within {_START_SECONDS:g} s")
                del busy[each.pipe]
                each.end()
                yield each.job, Lost(f"it was not read within {seconds:g} s")
    finally:
        for each in [*free, *busy.values()]:
            each.end()


def _finished(
    busy: dict[Connection, _Process], free: list[_Process], pipe: Connection, work: Callable[[Any], Any]
) -> Iterator[tuple[Any, Any]]:
    each = busy[pipe]
    started = each.ready
    try:
        result = each.result()
    except (EOFError, OSError) as error:
        del busy[pipe]
        how, deaths = each.end(), each.deaths + 1
        if not started and deaths >= _STARTS:
            raise _cannot_start(how) from error
        if started and deaths >= _DEATHS:
            yield each.job, Lost(f"the process that read it ended ({how})")
            return
        other = _Process(work)
        busy[other.pipe] = other
        other.begin(each.job, deaths)
        return
    if started:
        free.append(busy.pop(pipe))
        yield each.job, result


def _cannot_start(how: str) -> EnvironmentError_:
    return EnvironmentError_(f"The processes that read videos cannot start ({how}).", "Try --workers 1.")


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
