"""Work items: idempotent functions whose output alone decides whether they are done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

from ccl_cli.errors import CclError, MultipleErrors, SystemSetupError
from ccl_cli.utils.files import write_text

ERROR, LOG = "error.json", "log.txt"  # files in an item's folder: reason of a failure, and output


class Events(Protocol):
    """Events that an executor reports to its caller."""

    def began(self, name: str, place: str) -> None:
        """An item has started, for example on "gpu 0"."""

    def ended(self, name: str) -> None:
        """An item is done or has failed, on any machine."""


@dataclass(frozen=True)
class Work:
    """Work items and their function, serialisable as JSON for other machines.

    An item has failed if its folder contains an error file, which the next call removes.

    Attributes:
        title: Name of the work, one word.
        folder: Folder on a disk that all machines share, with a subfolder per item.
        function: ``module:name`` of a function that is called with an item in its own process. It may be
            called again after an interruption; its last step must be an atomic rename that makes ``done``
            true.
        done: ``module:name`` of a function that returns whether an item is done.
        items: JSON values by name.
        modules: Modules that the fork server imports; import errors are ignored.
    """

    title: str
    folder: Path
    function: str
    done: str
    items: Mapping[str, Any]
    modules: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> Work:
        """Parse the output of :meth:`to_json`."""
        values = json.loads(text)
        return cls(**values | {"folder": Path(values["folder"]), "modules": tuple(values["modules"])})

    def to_json(self) -> str:
        """Serialise the work."""
        return json.dumps(asdict(self) | {"folder": str(self.folder.absolute())})

    def only(self, names: Iterable[str]) -> Work:
        """Restrict the work to some items."""
        return replace(self, items={name: self.items[name] for name in names})

    def unfinished(self) -> Work:
        """Return the work without finished items."""
        return self.only(name for name in self.items if not self.is_done(name))

    def is_done(self, name: str) -> bool:
        """Return whether an item is done."""
        return bool(self._done(self.items[name]))

    def is_settled(self, name: str) -> bool:
        """Return whether an item is done or has failed."""
        return has_failed(self.folder / name) or self.is_done(name)

    def unsettled(self) -> list[str]:
        """Return the items that are neither done nor failed."""
        return [name for name in self.items if not self.is_settled(name)]

    def reason(self, name: str) -> str:
        """Return the reason of an item's failure in one sentence; "" if unknown."""
        try:
            return str(json.loads((self.folder / name / ERROR).read_text(encoding="utf-8"))["message"])
        except (OSError, ValueError, LookupError, TypeError):
            return ""

    @cached_property
    def _done(self) -> Callable[[Any], bool]:
        return resolve_name(self.done)  # type: ignore[no-any-return]


def not_shared(folder: Path) -> SystemSetupError:
    """Return the error for a folder that the nodes of the cluster cannot read."""
    return SystemSetupError(
        f"The nodes of the cluster cannot read '{folder}'.",
        "Use a folder on a shared disk: set CCL_RUNS for runs, CCL_HOME for caches.",
    )


def has_failed(folder: Path) -> bool:
    """Return whether an item has failed since it last started."""
    return (folder / ERROR).exists()


def write_error(folder: Path, error: BaseException, code: int) -> None:
    """Write the reason of an item's failure to its folder, if possible."""
    first = error.errors[0] if isinstance(error, MultipleErrors) else error
    if isinstance(first, CclError):
        values = {"message": first.message, "hint": first.hint}
    else:
        values = {"message": f"{type(error).__name__}: {error}", "hint": None}
    with suppress(OSError):
        write_text(folder / ERROR, json.dumps(values | {"exit_code": code}) + "\n")
