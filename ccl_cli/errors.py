"""Errors that users can act on: a message, a hint about the next step, and an exit code."""

from __future__ import annotations

from typing import ClassVar

from ccl_cli.utils.text import in_short

# Length limits of messages and hints. A longer text quotes a whole file of the wrong kind.
_LETTERS, _LINES = 1000, 100


class CclError(Exception):
    """Base class of all errors that are shown as a message instead of a traceback.

    Quoted file contents are escaped and truncated.

    Args:
        message: The problem, in one sentence.
        hint: The next step, as a sentence or a command; one per line.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = in_short(message, _LETTERS)
        self.hint = hint and "\n".join(in_short(line, _LETTERS) for line in hint.split("\n")[:_LINES])
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[CclError], tuple[str, str | None]]:
        return type(self), (self.message, self.hint)  # allows pickling between processes


class UsageError(CclError):
    """The command line is invalid."""

    exit_code = 2


class RecipeError(CclError):
    """A recipe, an override or a method's option is invalid."""

    exit_code = 3


class DataError(CclError):
    """Videos, split lists or manifests are missing, corrupt or inconsistent."""

    exit_code = 4


class PluginError(CclError):
    """A plugin is unknown, broken or violates its contract."""

    exit_code = 5


class SystemSetupError(CclError):
    """Weights, network, disk or hardware are unavailable."""

    exit_code = 6


class WeightsError(SystemSetupError):
    """A weights file is missing, damaged or does not match its network."""


class Interrupted(CclError):
    """The command was stopped; finished work is kept."""

    exit_code = 130


class PartDone(CclError):
    """The command has done its part of the work, and other parts are not done yet."""

    exit_code = 0


class MultipleErrors(CclError):
    """Several errors, reported together so that the user can fix them all at once.

    The exit code is that of the first error.
    """

    def __init__(self, errors: list[CclError]) -> None:
        super().__init__(f"{len(errors)} problems were found.")
        self.errors = errors

    def __reduce__(self) -> tuple[type[CclError], tuple[list[CclError]]]:  # type: ignore[override]
        return MultipleErrors, (self.errors,)
