"""Files that cannot be read: each is reported at once and left out, and the command ends with exit code 4."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ccl_cli.errors import DataError
from ccl_cli.utils.text import visible

_log = logging.getLogger("ccl")


class Unreadable:
    """Counts them.

    Args:
        files: How many were named in all, if that is known.
        closed: Folders that cannot be looked into, with the reason.
    """

    def __init__(self, files: int | None = None, closed: Mapping[str, str] | None = None) -> None:
        closed = closed or {}
        self._files = None if files is None else files + len(closed)
        self._told: list[str] = []
        for name, reason in closed.items():
            self.tell(name, reason)

    def tell(self, name: str, reason: str) -> None:
        """Say why one cannot be read."""
        self._told.append(visible(f"{name}: {reason}"))
        if self._files != 1:
            _log.warning("%s", self._told[-1])

    def check(self) -> None:
        """Once all others are done.

        Raises:
            DataError: one or more could not be read.
        """
        if self._told and self._files == 1:
            raise DataError(f"{self._told[0]}.", "See that the path is right, and that it is a whole video.")
        if self._told:
            count = f"{len(self._told)} of {self._files}" if self._files else str(len(self._told))
            raise DataError(f"{count} cannot be read; the others are done.", "The reasons stand above.")
