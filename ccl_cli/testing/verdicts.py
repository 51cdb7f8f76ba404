"""What a check says of a plugin, and how a list of checks is run: all of them, whatever one of them says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from torch import Tensor, nn

from ccl_cli.errors import CclError

T = TypeVar("T")
State = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Verdict:
    """One line about one part of the contract.

    Attributes:
        check: Which part.
        state: "ok", "failed", or "skipped": it does not concern this plugin, or needs another check to hold.
        said: What was expected, what was found and how to mend it; or why it was skipped.
    """

    check: str
    state: State
    said: str = ""

    def __str__(self) -> str:
        return f"{self.state:<8}{self.check:<18}{self.said}".rstrip()


@dataclass(frozen=True)
class Report:
    """All verdicts on one plugin, in the order in which they were reached."""

    verdicts: tuple[Verdict, ...]

    @property
    def failures(self) -> list[Verdict]:
        """The checks that failed; empty for a plugin that keeps its contract."""
        return [verdict for verdict in self.verdicts if verdict.state == "failed"]

    def __str__(self) -> str:
        return "\n".join(map(str, self.verdicts))


class Unmet(Exception):
    """A part of the contract that is not kept."""

    def __init__(self, expected: str, found: str, mend: str) -> None:
        super().__init__(f"expected {expected}; found {found}. {mend}")


class Skip(Exception):
    """A check that does not concern this plugin."""


class Checks(Generic[T]):
    """Checks of one kind of plugin, run in the order in which they are written down."""

    def __init__(self) -> None:
        self._all: list[tuple[str, tuple[str, ...], Callable[[T], None]]] = []

    def __call__(
        self, name: str, *, needs: tuple[str, ...] = ()
    ) -> Callable[[Callable[[T], None]], Callable[[T], None]]:
        """Add a function that raises :class:`Unmet` or :class:`Skip`.

        Args:
            name: What verdicts call it.
            needs: Checks that must hold for this one to make sense.
        """

        def add(run: Callable[[T], None]) -> Callable[[T], None]:
            self._all.append((name, needs, run))
            return run

        return add

    @property
    def names(self) -> tuple[str, ...]:
        """Of all checks."""
        return tuple(name for name, _, _ in self._all)

    def verdicts(self, trial: T) -> Iterator[Verdict]:
        """Run every check."""
        unknown: set[str] = set()
        for name, needs, run in self._all:
            first = next((need for need in needs if need in unknown), None)
            verdict = Verdict(name, "skipped", f"needs '{first}'") if first else _verdict(name, run, trial)
            if first or verdict.state == "failed":
                unknown.add(name)
            yield verdict


def expect(held: bool, expected: str, found: str, mend: str) -> None:
    """Raise :class:`Unmet` unless it held."""
    if not held:
        raise Unmet(expected, found, mend)


def left_behind(module: nn.Module) -> list[str]:
    """Names of tensors that ``module.to(device)`` does not move: neither parameters nor buffers."""
    return [
        f"{prefix}.{name}".lstrip(".")
        for prefix, each in module.named_modules()
        for name, value in vars(each).items()
        if not name.startswith("_") and _holds_tensor(value)
    ]


def expect_movable(module: nn.Module) -> None:
    """Every tensor follows the module to a GPU."""
    names = left_behind(module)
    expect(
        not names,
        "parameters and buffers only, which follow it to a GPU",
        f"plain tensors: {', '.join(names[:3])}",
        "Register each with self.register_buffer(name, tensor, persistent=False).",
    )


def _holds_tensor(value: object) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    inner = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(each, Tensor) for each in inner)


def _verdict(name: str, run: Callable[[T], None], trial: T) -> Verdict:
    try:
        run(trial)
    except Skip as why:
        return Verdict(name, "skipped", str(why))
    except Unmet as unmet:
        return Verdict(name, "failed", str(unmet))
    except CclError as error:
        return Verdict(name, "failed", _one_line(error))
    except Exception as error:
        return Verdict(name, "failed", f"it raised {type(error).__name__}: {_one_line(error)}")
    return Verdict(name, "ok")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or "no message"
