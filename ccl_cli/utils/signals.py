"""The signals that ask a command to stop, and who handles them for a while."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ccl_cli.errors import Interrupted

# A terminal's Ctrl-C, and what schedulers send.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_log = logging.getLogger("ccl")


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let ``handler`` take the signals that ask to stop, and give them back afterwards."""
    before = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


class Stopped(BaseException):
    """Told to stop there and then.

    No error, so that nothing that deals with errors, of one video for example, takes it for one.

    Args:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name


def stop_here(number: int, frame: FrameType | None) -> None:
    """A handler for work that is safe at any moment.

    Raises:
        Stopped: always.
    """
    raise Stopped(number)


@contextmanager
def stopping_here(outcome: str, hint: str) -> Iterator[None]:
    """Let signals end what is safe at any moment.

    Args:
        outcome: What the sentence says of the work, after "Stopped by SIGTERM".
        hint: The next step.

    Raises:
        Interrupted: one came.
    """
    try:
        with handled_by(stop_here):
            yield
    except Stopped as stopped:
        raise Interrupted(f"Stopped by {stopped.name}{outcome}", hint) from stopped


class StopRequest:
    """Set by a signal, looked at between steps."""

    def __init__(self) -> None:
        self.name = ""

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return bool(self.name)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler.

        Raises:
            Stopped: a second Ctrl-C does not wait any more.
        """
        if self.requested and number == signal.SIGINT:
            raise Stopped(number)
        self.name = signal.Signals(number).name
        _log.warning("%s: stopping after this step.", self.name)


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn SIGTERM, SIGINT and SIGUSR1 (what schedulers send) into a request to stop."""
    stop = StopRequest()
    with handled_by(stop):
        yield stop


@contextmanager
def held_signals() -> Iterator[None]:
    """Let signals wait; in a process started meanwhile too, until it lets them in.

    A server that processes are forked from never does: it ends with the one that started it, and a Ctrl-C in
    the terminal or a scheduler's signal to the whole group is not for it.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # started with the server, it would let them in
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_from_here() -> None:
    """Let a process end undisturbed: its work is done, or it has been told to stop already."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
