"""Worker processes: they start from a fork server, and end with the process that started them."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterable
from multiprocessing import AuthenticationError, forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import TracebackType
from typing import Any

from ccl_cli.utils.processes import end_with_parent
from ccl_cli.utils.signals import blocked_signals

# Modules that every worker needs.
PRELOAD = ("ccl_cli.data.clips.dataset", "ccl_cli.data.clips.evaluation_clips")


class _Process(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with blocked_signals():  # this may start the server
            return ForkServerProcess._Popen(process_obj)

    # At exit, Python terminates remaining processes and waits for them, but workers ignore SIGTERM.
    terminate = ForkServerProcess.kill


class _Server(ForkServerContext):
    """Processes forked from a server. The server blocks signals; a worker sets them up in :func:`begin`."""

    Process = _Process


SERVER = _Server()


def start_server(modules: Iterable[str] = ()) -> None:
    """Start the server before the first workers, so that it imports while this process imports, too.

    Args:
        modules: Further modules for the server to import.
    """
    multiprocessing.set_forkserver_preload([*PRELOAD, *modules])
    with blocked_signals():
        forkserver.ensure_running()


def worker_options(modules: Iterable[str] = ()) -> dict[str, Any]:
    """Options of torch's DataLoader for worker processes.

    Workers are forked from a server that has only imported modules: faster than starting Python, and safer
    than forking the training process with its threads.

    Args:
        modules: Further modules for the server to import.
    """
    multiprocessing.set_forkserver_preload([*PRELOAD, *modules])
    return {"multiprocessing_context": SERVER, "worker_init_fn": begin}


def begin(worker: int) -> None:
    """Initialise a worker process."""
    # Ctrl-C or a scheduler's signal reaches the whole process group, but only the main process reacts.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _excepthook
    end_with_parent()


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # Errors of a dataset are returned as samples. Errors of these kinds come from the thread that sends
    # batches, when the process that reads them was stopped or killed, and need no report.
    if not issubclass(kind, (OSError, EOFError, AuthenticationError)):
        sys.__excepthook__(kind, error, trace)
