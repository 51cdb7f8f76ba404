"""Checkpoints: everything that a resumed run needs to take the same steps as an uninterrupted one.

A file is written atomically, the newest two are kept, and the newest readable one is used.
"""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ccl_cli.errors import DataError, SystemSetupError, UsageError
from ccl_cli.training.run.video_states import VideoStates
from ccl_cli.utils.files import atomic_path

if TYPE_CHECKING:
    from ccl_cli.training.trainer import Trainer

_FORMAT = "ccl-state-2"  # increased whenever an entry is added, renamed or removed
_log = logging.getLogger("ccl")


def state_dict(trainer: Trainer) -> dict[str, Any]:
    """Tensors and plain values of a trainer. A collective call; the main process saves the result."""
    scaler = trainer.accelerator.scaler
    states = trainer.video_states.gathered()
    return {
        "format": _FORMAT,
        "step": trainer.step,
        "seconds": trainer.seconds,
        "distiller": trainer.unwrapped.state_dict(),
        "ema": trainer.ema.state_dict() if trainer.ema else None,
        "optimizer": trainer.optimizer.state_dict(),  # the learning rate is a function of the step
        "scaler": scaler.state_dict() if scaler else None,
        "cached": {name: rows.cached.folder.name for name, rows in trainer.cached.items()},
        "meter": trainer.meter.state_dict(),
        "modalities": states.modalities,
        "unreadable": states.unreadable,
        "skipped": trainer.guard.state_dict(),
        "faults": trainer.teacher_faults.state_dict(),
        "held_out": trainer.held_out.state_dict(),
    }


def load_state_dict(trainer: Trainer, state: dict[str, Any]) -> None:
    """Restore the state of :func:`state_dict` in a trainer that was built from the same recipe.

    Raises a UsageError if another version of ccl wrote it, or a cache that the run reads does not exist.
    """
    if state.get("format") != _FORMAT:
        raise UsageError(
            f"Another version of ccl wrote the checkpoints of '{trainer.run.path}'.",
            "Continue with that version, or start a new run.",
        )
    _use_caches_of(trainer, state["cached"])
    trainer.step, trainer.seconds_before = state["step"], state["seconds"]
    trainer.unwrapped.load_state_dict(state["distiller"])
    if trainer.ema:
        trainer.ema.load_state_dict(state["ema"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    if trainer.accelerator.scaler and state["scaler"]:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    trainer.meter.load_state_dict(state["meter"], trainer.device)
    trainer.video_states = VideoStates(state["modalities"], state["unreadable"])
    trainer.guard.load_state_dict(state["skipped"])
    trainer.teacher_faults.load_state_dict(state["faults"])
    trainer.held_out.load_state_dict(state["held_out"])


def write_state(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the checkpoint of a step atomically, then remove all but the newest two."""
    path = folder / f"step-{step:09d}.pt"
    try:
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of torch
        reason = getattr(error, "strerror", None) or "the disk is full, or refuses"
        raise SystemSetupError(
            f"The checkpoint '{path}' cannot be written: {reason}.",
            "Free some disk space. The previous checkpoint is intact.",
        ) from error
    _keep_two(folder, path)
    return path


def newest_state(folder: Path) -> Path:
    """The newest readable checkpoint; a DataError if there is none.

    One process must choose for all, so that all resume from the same step.
    """
    for path in reversed(states(folder)):
        try:
            read_state(path)
        except Exception as error:  # damaged bytes may cause any error
            _log.warning("Checkpoint %s is damaged (%s); trying the previous one.", path.name, error)
        else:
            _keep_two(folder, path)  # the process may have been killed between writing and removing
            return path
    raise DataError(f"'{folder}' contains no readable checkpoint.", "Start a new run.")


def states(folder: Path) -> list[Path]:
    """All checkpoints of a folder, intact or not, the newest last."""
    return sorted(folder.glob("step-*.pt"))


def read_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint. The checksums of the zip file show damage that torch does not notice."""
    with zipfile.ZipFile(path) as file:
        if damaged := file.testzip():
            raise zipfile.BadZipFile(f"{damaged} has changed")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _use_caches_of(trainer: Trainer, folders: dict[str, str]) -> None:
    """Read the caches with which the run started, and no others."""
    available = {name: rows.cached for name, rows in trainer.cached.items()}
    for name, folder in folders.items():
        if name not in available or available[name].folder.name != folder:
            raise UsageError(
                f"The run started with embeddings of {name} from the cache '{folder}', which does not exist.",
                "Build it again with `ccl cache build`, or start a new run.",
            )
    trainer.use_caches({name: available[name] for name in folders})


def _keep_two(folder: Path, path: Path) -> None:
    """Keep ``path``, which is intact, and the checkpoint before it. Newer ones are damaged."""
    kept = [state for state in states(folder) if state <= path][-2:]
    for other in set(states(folder)) - set(kept):
        other.unlink(missing_ok=True)
