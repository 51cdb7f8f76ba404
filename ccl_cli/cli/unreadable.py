"""Unreadable files: each is logged at once and left out, and the command ends with exit code 4."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ccl_cli.errors import DataError
from ccl_cli.utils.text import visible

_log = logging.getLogger("ccl")


class Unreadable:
    """Collects them.

    Args:
        files: Number of files in all, if that is known.
        closed: Folders that cannot be listed, with the reason.
    """

    def __init__(self, files: int | None = None, closed: Mapping[str, str] | None = None) -> None:
        closed = closed or {}
        self._files = None if files is None else files + len(closed)
        self._messages: list[str] = []
        for name, reason in closed.items():
            self.add(name, reason)

    def add(self, name: str, reason: str) -> None:
        """Log one."""
        self._messages.append(visible(f"{name}: {reason}"))
        if self._files != 1:
            _log.warning("%s", self._messages[-1])

    def check(self) -> None:
        """Call this once all others are done.

        Raises:
            DataError: there are any.
        """
        if self._messages and self._files == 1:
            raise DataError(
                f"{self._messages[0]}.", "See that the path is right, and that it is a whole video."
            )
        if self._messages:
            count = f"{len(self._messages)} of {self._files}" if self._files else str(len(self._messages))
            raise DataError(f"{count} cannot be read; the others are done.", "The reasons stand above.")
