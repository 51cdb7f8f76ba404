"""Told to stop: signals become a request that is looked at between steps."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ccl_cli.utils.signals import Stopped, handled_by

_log = logging.getLogger("ccl")


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
