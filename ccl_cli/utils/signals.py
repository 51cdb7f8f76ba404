"""Stop signals and their handlers."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ccl_cli.errors import Interrupted

# Ctrl-C in a terminal, and the signals of schedulers.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_log = logging.getLogger("ccl")


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a handler of the stop signals, and restore the previous handlers afterwards."""
    before = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


class Stopped(BaseException):
    """Stop immediately; not an ``Exception``, so that handlers of errors (of one video) let it pass."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name


def stop_here(number: int, frame: FrameType | None) -> None:
    """Signal handler for work that can be interrupted at any time: raise :class:`Stopped`."""
    raise Stopped(number)


@contextmanager
def stopping_here(outcome: str, hint: str) -> Iterator[None]:
    """Let stop signals end work that can be interrupted at any time, with :class:`Interrupted`.

    Args:
        outcome: Text of the message after "Stopped by SIGTERM".
        hint: Hint of the error.
    """
    try:
        with handled_by(stop_here):
            yield
    except Stopped as stopped:
        raise Interrupted(f"Stopped by {stopped.name}{outcome}", hint) from stopped


class StopRequest:
    """Flag that a signal sets, for checking between steps."""

    def __init__(self) -> None:
        self.name = ""

    @property
    def requested(self) -> bool:
        """Whether a signal was received."""
        return bool(self.name)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; the second Ctrl-C raises :class:`Stopped`."""
        if self.requested and number == signal.SIGINT:
            raise Stopped(number)
        self.name = signal.Signals(number).name
        _log.warning("%s: stopping after this step.", self.name)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Convert SIGTERM, SIGINT and SIGUSR1 to a stop request."""
    stop = StopRequest()
    with handled_by(stop):
        yield stop


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block stop signals, also in child processes started meanwhile until they unblock them.

    A fork server never unblocks them. It ends with its parent, so a Ctrl-C in the terminal or a signal to the
    whole process group must not end it.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # started later with the server, it would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_from_here() -> None:
    """Ignore further stop signals, because the process is already ending."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
