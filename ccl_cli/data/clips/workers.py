"""The processes that decode: how they start, and that none outlives the process that started it."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import TracebackType
from typing import Any

from ccl_cli.errors import EnvironmentError_
from ccl_cli.utils.signals import held_signals

_LATER = 0.2  # seconds
# What torch says of a loader's process that is no more.
_LOST = re.compile(r"DataLoader worker .*(exited unexpectedly|is killed by signal)")


class _Process(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with held_signals():  # the server may be started now
            return ForkServerProcess._Popen(process_obj)

    # These are deaf to SIGTERM, with which Python ends those that are left when it exits and waits for them.
    terminate = ForkServerProcess.kill


class _Server(ForkServerContext):
    """Processes that are forked from a server; signals wait in it, and in them until they let them in."""

    Process = _Process


SERVER = _Server()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_options(workers: int, modules: Iterable[str] = ()) -> dict[str, Any]:
    """Arguments of a data loader for its processes.

    Workers are forked from a server that has only imported what they need: cheaper than a start from nothing,
    and safer than a fork of the training process with its threads.

    Args:
        workers: Number of processes; 0 decodes in this process.
        modules: What the server should import beforehand, besides our own.
    """
    if not workers:
        return {"num_workers": 0}
    multiprocessing.set_forkserver_preload(["ccl_cli.data.clips.fork_server", *modules])
    return {
        "num_workers": workers,
        "multiprocessing_context": SERVER,
        "worker_init_fn": begin,
        "prefetch_factor": 4,
    }


def begin(worker: int) -> None:
    """What a process that decodes does first."""
    # Whoever stops the run decides when: a Ctrl-C or a scheduler's signal reaches the whole group.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _tell
    end_with_parent()


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # What fails while videos are read travels another way. This comes from the thread that hands batches on:
    # that whoever reads them has gone, stopped or killed in the middle, is no news to anybody.
    if not issubclass(kind, (OSError, EOFError, AuthenticationError)):
        sys.__excepthook__(kind, error, trace)


@contextmanager
def naming_lost_workers(advice: str = "") -> Iterator[None]:
    """Around reading a loader: that its processes have ended becomes a sentence.

    Args:
        advice: A further step.

    Raises:
        EnvironmentError_: a process of the loader has ended.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        if not is_loss(error):
            raise
        if not isinstance(error, RuntimeError):  # what torch says of its own child comes later, by a signal
            with suppress(RuntimeError):
                time.sleep(_LATER)
        said = str(error).splitlines()[0] if isinstance(error, RuntimeError) else type(error).__name__
        raise EnvironmentError_(
            f"The processes that read videos ended: {said}",
            f"If memory ran out, lower --workers{'; ' if advice else ''}{advice}.",
        ) from error


def is_loss(error: Exception) -> bool:
    """Whether it tells that a process of a loader has ended, perhaps while it handed over a batch."""
    if isinstance(error, RuntimeError):
        return bool(_LOST.search(str(error)))
    return isinstance(error, (ConnectionError, EOFError))


def end_with_parent() -> None:
    """Let this process leave when the one that started it is gone, killed or not.

    Processes of a fork server are otherwise only watched by the server.
    """
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
