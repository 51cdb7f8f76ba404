"""Items of work: each idempotent, done when its function says so, and nothing else is the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

from ccl_cli.errors import CclError, MultipleErrors
from ccl_cli.utils.files import write_text

ERROR, LOG = "error.json", "log.txt"  # in an item's folder: the reason of a failure, and the item's output


class Events(Protocol):
    """What an executor tells its caller."""

    def began(self, name: str, place: str) -> None:
        """An item runs, for example on "gpu 0"."""

    def ended(self, name: str) -> None:
        """An item is done or has failed, here or elsewhere."""


@dataclass(frozen=True)
class Work:
    """Items, and the function that does one; whole it is JSON, so that any machine can read it.

    Attributes:
        title: Of the whole, a word.
        folder: Where all machines see it; every item has a folder of its own in it.
        function: ``module:name``; called with an item, in a process of its own; perhaps again for what
            another has begun. Its last act, an atomic rename, makes ``done`` true.
        done: ``module:name``; called with an item: whether it is done.
        items: Plain values by name.
        modules: What a process imports before it begins; one that is not there is the items' own trouble.
        failures: When each item had failed before this work began, in nanoseconds of the disk's clock.
    """

    title: str
    folder: Path
    function: str
    done: str
    items: Mapping[str, Any]
    modules: tuple[str, ...] = ()
    failures: Mapping[str, int | None] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Work:
        """Read what :meth:`to_json` has made."""
        values = json.loads(text)
        return cls(**values | {"folder": Path(values["folder"]), "modules": tuple(values["modules"])})

    def to_json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self) | {"folder": str(self.folder.absolute())})

    def left(self) -> Work:
        """What is not done; from now on it counts when an item fails."""
        items = {name: item for name, item in self.items.items() if not self.is_done(name)}
        return replace(self, items=items, failures={name: failed_at(self.folder / name) for name in items})

    def only(self, names: Iterable[str]) -> Work:
        """Some of the items."""
        return replace(self, items={name: self.items[name] for name in names})

    def is_done(self, name: str) -> bool:
        """Whether an item is done."""
        return bool(self._done(self.items[name]))

    def is_settled(self, name: str) -> bool:
        """Whether an item is done, or has failed since this work began."""
        failed = failed_at(self.folder / name)
        return (failed is not None and failed != self.failures.get(name)) or self.is_done(name)

    def unsettled(self) -> list[str]:
        """The items of which nothing has come yet."""
        return [name for name in self.items if not self.is_settled(name)]

    def reason(self, name: str) -> str:
        """Why an item failed, in one sentence; "" where nothing is known."""
        return reason(self.folder / name)

    @cached_property
    def _done(self) -> Callable[[Any], bool]:
        return resolve_name(self.done)  # type: ignore[no-any-return]


def failed_at(folder: Path) -> int | None:
    """When an item failed last; None: it has not since it last began."""
    try:
        return (folder / ERROR).stat().st_mtime_ns
    except OSError:
        return None


def reason(folder: Path) -> str:
    """Why an item failed, in one sentence; "" where nothing is known."""
    try:
        record = json.loads((folder / ERROR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(record.get("message", "")) if isinstance(record, dict) else ""


def write_error(folder: Path, error: BaseException, code: int) -> None:
    """Write why an item failed, for its caller and for readers of the folder, if the disk takes it."""
    first = error.errors[0] if isinstance(error, MultipleErrors) else error
    message = first.message if isinstance(first, CclError) else f"{type(error).__name__}: {error}"
    hint = first.hint if isinstance(first, CclError) else None
    with suppress(OSError):
        write_text(folder / ERROR, json.dumps({"message": message, "hint": hint, "exit_code": code}) + "\n")
