"""Resume state: written whole, newest two kept, the newest one that can be read is used."""

from __future__ import annotations

import errno
import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from ccl_cli.errors import DataError, SystemSetupError
from ccl_cli.utils.files import atomic_path

_KEEP = 2
_log = logging.getLogger("ccl")


def save_state(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state of one step, then remove all but the newest two.

    Args:
        folder: The run's state folder.
        step: Steps taken.
        state: Tensors and plain Python values only, so that it can be read back without executing anything.
    """
    path = folder / f"step-{step:09d}.pt"
    try:
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # torch says of a full disk where in its file it stands
        reason = getattr(error, "strerror", None) or "the disk is full, or refuses"
        raise SystemSetupError(
            f"The checkpoint '{path}' cannot be written: {reason}.",
            "Make room; the one before is untouched.",
        ) from error
    _remove_older(folder, path)
    for newer in _states(folder):
        if newer > path:  # newest_state passed over it: it is damaged
            newer.unlink(missing_ok=True)
    return path


def newest_state(folder: Path) -> Path:
    """The newest state that is whole. Of several processes one chooses for all, or they may resume apart.

    Raises:
        DataError: there is none.
        SystemSetupError: the disk does not give one away; nothing is removed then.
    """
    for path in reversed(_states(folder)):
        try:
            load_state(path)
        except Exception as error:  # damaged bytes make a reader say anything
            if isinstance(error, MemoryError) or getattr(error, "errno", None) not in (None, errno.EINVAL):
                reason = getattr(error, "strerror", None) or "there is no memory for it"
                raise SystemSetupError(
                    f"The checkpoint '{path}' cannot be read: {reason}.", "It may be whole: try again."
                ) from error
            _log.warning("Checkpoint %s is damaged (%s); trying the one before.", path.name, error)
        else:
            _remove_older(folder, path)  # a kill may have come between writing and removing
            return path
    raise DataError(f"'{folder}' holds no checkpoint that can be read.", "Start the run anew.")


def holds_state(folder: Path) -> bool:
    """Whether there is any state in a folder, whole or not."""
    return bool(_states(folder))


def load_state(path: Path) -> dict[str, Any]:
    """Read a state; torch alone does not notice every damage to its bytes."""
    with zipfile.ZipFile(path) as file:
        if damaged := file.testzip():
            raise zipfile.BadZipFile(f"{damaged} has changed")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _remove_older(folder: Path, path: Path) -> None:
    """Remove what is older than the newest two up to ``path``, which is whole."""
    for old in [state for state in _states(folder) if state <= path][:-_KEEP]:
        old.unlink(missing_ok=True)


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"))
