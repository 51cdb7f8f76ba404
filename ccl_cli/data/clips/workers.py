"""The processes that decode: how they start, and that none outlives the process that started it."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterable
from multiprocessing import AuthenticationError
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import TracebackType
from typing import Any

from ccl_cli.utils.processes import end_with_parent
from ccl_cli.utils.signals import blocked_signals

# What every process that decodes needs.
PRELOAD = ("ccl_cli.data.clips.dataset", "ccl_cli.data.clips.evaluation_clips")


class _Process(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with blocked_signals():  # the server may be started now
            return ForkServerProcess._Popen(process_obj)

    # Python terminates the processes that are left when it exits, and waits for them; these ignore SIGTERM.
    terminate = ForkServerProcess.kill


class _Server(ForkServerContext):
    """Processes that are forked from a server. The server blocks signals, a process until :func:`begin`."""

    Process = _Process


SERVER = _Server()


def worker_options(modules: Iterable[str] = ()) -> dict[str, Any]:
    """Arguments of a data loader for its processes.

    Workers are forked from a server that has only imported what they need: cheaper than a start from nothing,
    and safer than a fork of the training process with its threads.

    Args:
        modules: What the server should import beforehand, besides our own.
    """
    multiprocessing.set_forkserver_preload([*PRELOAD, *modules])
    return {"multiprocessing_context": SERVER, "worker_init_fn": begin}


def begin(worker: int) -> None:
    """What a process that decodes does first."""
    # Whoever stops the run decides when: a Ctrl-C or a scheduler's signal reaches the whole group.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _excepthook
    end_with_parent()


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # What fails while videos are read travels another way. This comes from the thread that hands batches on:
    # that whoever reads them has gone, stopped or killed in the middle, is no news to anybody.
    if not issubclass(kind, (OSError, EOFError, AuthenticationError)):
        sys.__excepthook__(kind, error, trace)
