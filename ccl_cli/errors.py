"""Errors a user can act on: one sentence, the next step, and the exit code of the process."""

from __future__ import annotations

from typing import ClassVar

from ccl_cli.utils.text import in_short

# Of a sentence and of a hint: what is longer repeats a whole file that was no such thing.
_LETTERS, _LINES = 1000, 100


class CclError(Exception):
    """Base of every error that is shown as a sentence instead of a traceback.

    What it repeats of others' files is made visible, and cut where it is long.

    Args:
        message: What is wrong, as one sentence.
        hint: The next step, as one sentence or a command; several on a line each.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = in_short(message, _LETTERS)
        self.hint = hint and "\n".join(in_short(line, _LETTERS) for line in hint.split("\n")[:_LINES])
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[CclError], tuple[str, str | None]]:
        return type(self), (self.message, self.hint)  # survives the trip out of a loader's worker


class UsageError(CclError):
    """The command line does not make sense."""

    exit_code = 2


class RecipeError(CclError):
    """A recipe, an override or a method's option is invalid."""

    exit_code = 3


class DataError(CclError):
    """Videos, split lists or manifests are missing, corrupt or inconsistent."""

    exit_code = 4


class PluginError(CclError):
    """A plugin is unknown, broken or breaks its contract."""

    exit_code = 5


class SystemSetupError(CclError):
    """Weights, network, disk or hardware are not there."""

    exit_code = 6


class WeightsError(SystemSetupError):
    """A weights file is absent, damaged or does not fit its network."""


class Interrupted(CclError):
    """Told to stop; what was done so far is kept."""

    exit_code = 130


class MultipleErrors(CclError):
    """More than one thing is missing; each is named, so that the user can fix all of them at once.

    The exit code is the first one's.
    """

    def __init__(self, errors: list[CclError]) -> None:
        super().__init__(f"{len(errors)} things are missing.")
        self.errors = errors

    def __reduce__(self) -> tuple[type[CclError], tuple[list[CclError]]]:  # type: ignore[override]
        return MultipleErrors, (self.errors,)
