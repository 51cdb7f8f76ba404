"""The signals that ask a run to stop, and who handles them for a while."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ccl_cli.errors import Interrupted

# A terminal's Ctrl-C, and what schedulers send.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let ``handler`` take the signals that ask to stop, and give them back afterwards."""
    before = {number: signal.signal(number, handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def interrupt(number: int, frame: FrameType | None) -> None:
    """A handler that stops there and then: for work that is safe at any moment.

    Raises:
        Interrupted: always.
    """
    raise Interrupted(f"Stopped by {signal.Signals(number).name}.")
