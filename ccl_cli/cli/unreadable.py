"""Unreadable files: log each one and skip it, then exit with code 4."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ccl_cli.errors import DataError
from ccl_cli.utils.text import visible

_log = logging.getLogger("ccl")


class Unreadable:
    """Collect unreadable files.

    Args:
        files: Total number of files, if known.
        closed: Reason by folder, for folders that cannot be listed.
    """

    def __init__(self, files: int | None = None, closed: Mapping[str, str] | None = None) -> None:
        closed = closed or {}
        self._files = None if files is None else files + len(closed)
        self._messages: list[str] = []
        for name, reason in closed.items():
            self.add(name, reason)

    def add(self, name: str, reason: str) -> None:
        """Log one unreadable file."""
        self._messages.append(visible(f"{name}: {reason}"))
        if self._files != 1:
            _log.warning("%s", self._messages[-1])

    def check(self) -> None:
        """Raise an error if any file was unreadable. Call this after all other files are done.

        Raises:
            DataError: at least one file was unreadable.
        """
        if self._messages and self._files == 1:
            raise DataError(f"{self._messages[0]}.", "Check the path, and that the file is a complete video.")
        if self._messages:
            of = f" of {self._files}" if self._files else ""
            count = f"{len(self._messages)}{of} files could not be read; the others are done."
            raise DataError(count, "See the reasons above.")
