"""Results of checks, and a runner that continues after failed checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from torch import Tensor, nn

from ccl_cli.errors import CclError
from ccl_cli.utils.text import one_line

T = TypeVar("T")
State = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Verdict:
    """Result of one check.

    Attributes:
        check: Name of the check.
        state: "ok", "failed", or "skipped" if the check does not apply or requires a failed one.
        message: Problem and fix, or reason for skipping.
    """

    check: str
    state: State
    message: str = ""

    def __str__(self) -> str:
        return f"{self.state:<8}{self.check:<18}{self.message}".rstrip()


@dataclass(frozen=True)
class Report:
    """All results for a plugin, in order."""

    verdicts: tuple[Verdict, ...]

    @property
    def failures(self) -> list[Verdict]:
        """Failed checks; empty for a conforming plugin."""
        return [verdict for verdict in self.verdicts if verdict.state == "failed"]

    def __str__(self) -> str:
        return "\n".join(map(str, self.verdicts))


class Unmet(Exception):
    """A check has failed."""


class Skip(Exception):
    """A check does not apply to this plugin."""


class Checks(Generic[T]):
    """Checks for a kind of plugin, by name, run in the order of definition."""

    def __init__(self) -> None:
        self._all: dict[str, tuple[tuple[str, ...], Callable[[T], None]]] = {}

    def __call__(self, *needs: str) -> Callable[[Callable[[T], None]], Callable[[T], None]]:
        """Register a function that raises :class:`Unmet` or :class:`Skip`; its name is the name of the check.

        Args:
            needs: Checks that must pass first.
        """

        def add(run: Callable[[T], None]) -> Callable[[T], None]:
            self._all[run.__name__.strip("_").replace("_", " ")] = needs, run
            return run

        return add

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all checks."""
        return tuple(self._all)

    def verdicts(self, trial: T) -> Iterator[Verdict]:
        """Run every check."""
        unknown: set[str] = set()
        for name, (needs, run) in self._all.items():
            missing = [need for need in needs if need in unknown]
            if missing:
                verdict = Verdict(name, "skipped", f"requires '{missing[0]}'")
            else:
                verdict = _verdict(name, run, trial)
            if missing or verdict.state == "failed":
                unknown.add(name)
            yield verdict


def expect(condition: bool, message: str) -> None:
    """Raise :class:`Unmet` unless a condition is true."""
    if not condition:
        raise Unmet(message)


def expect_finite(*tensors: Tensor | None, of: str) -> None:
    """Check that tensors contain neither NaN nor infinity."""
    finite = all(bool(tensor.isfinite().all()) for tensor in tensors if tensor is not None)
    expect(finite, f"NaN or infinity {of}. Check divisions and logarithms.")


def expect_movable(module: nn.Module) -> None:
    """Check that all tensors are parameters or buffers, so that they move to a GPU with the module."""
    names = [
        f"{prefix}.{name}".lstrip(".")
        for prefix, each in module.named_modules()
        for name, value in vars(each).items()
        if not name.startswith("_") and _contains_tensor(value)
    ]
    expect(
        not names,
        f"tensors that do not move to a GPU with the module: {', '.join(names[:3])}. "
        "Use self.register_buffer(name, tensor, persistent=False).",
    )


def _contains_tensor(value: object) -> bool:
    values: Iterable[object] = [value]
    if isinstance(value, dict | list | tuple):
        values = value.values() if isinstance(value, dict) else value
    return any(isinstance(each, Tensor) for each in values)


def _verdict(name: str, run: Callable[[T], None], trial: T) -> Verdict:
    try:
        run(trial)
    except Skip as skip:
        return Verdict(name, "skipped", f"{skip}")
    except Exception as error:
        reason = one_line(error) or "no message"
        if not isinstance(error, Unmet | CclError):
            reason = f"it raised {type(error).__name__}: {reason}"
        return Verdict(name, "failed", reason)
    return Verdict(name, "ok")
