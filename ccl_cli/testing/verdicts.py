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
        message: What was found, what was expected and how to fix it; or why it was skipped.
    """

    check: str
    state: State
    message: str = ""

    def __str__(self) -> str:
        return f"{self.state:<8}{self.check:<18}{self.message}".rstrip()


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


class Skip(Exception):
    """A check that does not concern this plugin."""


class Checks(Generic[T]):
    """Checks of one kind of plugin, by name, run in the order in which they are written down."""

    def __init__(self) -> None:
        self._all: dict[str, tuple[tuple[str, ...], Callable[[T], None]]] = {}

    def __call__(self, *needs: str) -> Callable[[Callable[[T], None]], Callable[[T], None]]:
        """Add a function that raises :class:`Unmet` or :class:`Skip`; its name is that of the check.

        Args:
            needs: Checks that must hold for this one to make sense.
        """

        def add(run: Callable[[T], None]) -> Callable[[T], None]:
            self._all[run.__name__.strip("_").replace("_", " ")] = needs, run
            return run

        return add

    @property
    def names(self) -> tuple[str, ...]:
        """Of all checks."""
        return tuple(self._all)

    def verdicts(self, trial: T) -> Iterator[Verdict]:
        """Run every check."""
        unknown: set[str] = set()
        for name, (needs, run) in self._all.items():
            missing = [need for need in needs if need in unknown]
            if missing:
                verdict = Verdict(name, "skipped", f"needs '{missing[0]}'")
            else:
                verdict = _verdict(name, run, trial)
            if missing or verdict.state == "failed":
                unknown.add(name)
            yield verdict


def expect(holds: bool, message: str) -> None:
    """Raise :class:`Unmet` unless it holds."""
    if not holds:
        raise Unmet(message)


def expect_finite(*tensors: Tensor | None, of: str) -> None:
    """Neither NaN nor infinity, in what there is."""
    finite = all(bool(tensor.isfinite().all()) for tensor in tensors if tensor is not None)
    expect(finite, f"NaN or infinity {of}. Look at its divisions.")


def expect_movable(module: nn.Module) -> None:
    """Every tensor follows the module to a GPU: it is a parameter or a buffer."""
    names = [
        f"{prefix}.{name}".lstrip(".")
        for prefix, each in module.named_modules()
        for name, value in vars(each).items()
        if not name.startswith("_") and _holds_tensor(value)
    ]
    expect(
        not names,
        f"plain tensors do not follow it to a GPU: {', '.join(names[:3])}. "
        "Use self.register_buffer(name, tensor, persistent=False).",
    )


def _holds_tensor(value: object) -> bool:
    inner = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    )
    return any(isinstance(each, Tensor) for each in inner)


def _verdict(name: str, run: Callable[[T], None], trial: T) -> Verdict:
    try:
        run(trial)
    except Skip as reason:
        return Verdict(name, "skipped", f"{reason}")
    except Exception as error:
        reason_text = " ".join(str(error).split()) or "no message"
        ours = isinstance(error, Unmet | CclError)
        return Verdict(
            name, "failed", reason_text if ours else f"it raised {type(error).__name__}: {reason_text}"
        )
    return Verdict(name, "ok")
