"""A process pool for files that may crash or hang a decoder: only the job of such a file fails."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from ccl_cli.data.clips.workers import SERVER, begin
from ccl_cli.errors import CclError, SystemSetupError

J = TypeVar("J")
R = TypeVar("R")
_POLL_SECONDS = 0.5


class Failure(NamedTuple):
    """Reason why a job has no result."""

    reason: str


def run_each(
    jobs: Iterable[J], work: Callable[[J], R], *, workers: int, timeout: float
) -> Iterator[tuple[J, R | Failure]]:
    """Run jobs in several processes, and yield results in order of completion.

    Args:
        jobs: Jobs, consumed when workers are free.
        work: Module-level function, called in the processes. A job for which it raises an error fails.
        workers: Number of processes.
        timeout: Time limit for one job, seconds. A process that takes longer is replaced, and its job fails.

    Raises:
        SystemSetupError: processes cannot start.
    """
    multiprocessing.set_forkserver_preload(["ccl_cli.data.checks.inspect"])
    pool = ProcessPool(workers, initializer=begin, initargs=(0,), context=SERVER)
    queue, task = iter(jobs), partial(_attempt, work)
    pending: dict[ProcessFuture[Any], J] = {}
    try:
        while True:
            for job in islice(queue, 2 * workers - len(pending)):
                pending[pool.schedule(task, (job,), timeout=timeout)] = job
            if not pending:
                return
            wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            if not pool.active:  # without workers, pending jobs would wait forever
                raise RuntimeError
            for future in [future for future in pending if future.done()]:
                yield pending.pop(future), _result(future, timeout)
    except RuntimeError as error:  # raised by pebble if workers end before their first job
        raise SystemSetupError(
            "The processes that read videos cannot start.", "If memory ran out, try --workers 1."
        ) from error
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _attempt(work: Callable[[J], R], job: J) -> R | Failure:
    """Catch errors in the worker, since not every exception can be pickled."""
    try:
        return work(job)
    except Exception as error:
        return Failure(error.message.rstrip(".") if isinstance(error, CclError) else repr(error))


def _result(future: ProcessFuture[R | Failure], timeout: float) -> R | Failure:
    try:
        return future.result()
    except TimeoutError:
        return Failure(f"it was not read within {timeout:g} s")
    except ProcessExpired as error:
        code = error.exitcode
        ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Failure(f"the process that read it ended ({ending})")
