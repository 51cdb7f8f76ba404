"""What a checkpoint holds: everything a resumed run needs to take the same steps as an uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ccl_cli.errors import UsageError
from ccl_cli.training.run.video_states import VideoStates

if TYPE_CHECKING:
    from ccl_cli.training.trainer import Trainer

_FORMAT = "ccl-state-2"  # counts up whenever an entry is added, renamed or gone


def state_dict(trainer: Trainer) -> dict[str, Any]:
    """The trainer's state as the first process saves it; all of them call this together."""
    scaler = trainer.accelerator.scaler
    states = trainer.video_states.gathered()
    return {
        "format": _FORMAT,
        "step": trainer.step,
        "seconds": trainer.seconds,
        "distiller": trainer.bare.state_dict(),
        "ema": trainer.ema.state_dict() if trainer.ema else None,
        "optimizer": trainer.optimizer.state_dict(),  # the learning rate is a function of the step
        "scaler": scaler.state_dict() if scaler else None,
        "cached": {name: rows.cached.folder.name for name, rows in trainer.cached.items()},
        "meter": trainer.meter.state_dict(),
        "modalities": states.modalities,
        "unreadable": states.unreadable,
        "skipped": trainer.skipped.state_dict(),
        "faults": trainer.faults.state_dict(),
        "held_out": trainer.held_out.state_dict(),
    }


def load_state_dict(trainer: Trainer, state: dict[str, Any]) -> None:
    """Put a trainer that was built from the same recipe into a state of :func:`state_dict`.

    Raises:
        UsageError: another version of ccl wrote it, or a cache has gone.
    """
    if state.get("format") != _FORMAT:
        raise UsageError(
            f"Another version of ccl wrote the checkpoints of '{trainer.run.path}'.",
            "Go on with that version, or start a new run.",
        )
    _use_caches_of(trainer, state["cached"])
    trainer.step, trainer.seconds_before = state["step"], state["seconds"]
    trainer.bare.load_state_dict(state["distiller"])
    if trainer.ema:
        trainer.ema.load_state_dict(state["ema"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    if trainer.accelerator.scaler and state["scaler"]:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    trainer.meter.load_state_dict(state["meter"], trainer.device)
    trainer.video_states = VideoStates(state["modalities"], state["unreadable"])
    trainer.skipped.load_state_dict(state["skipped"])
    trainer.faults.load_state_dict(state["faults"])
    trainer.held_out.load_state_dict(state["held_out"])


def _use_caches_of(trainer: Trainer, folders: Mapping[str, str]) -> None:
    """Read the caches with which the run began, and no others."""
    available = {name: rows.cached for name, rows in trainer.cached.items()}
    for name, folder in folders.items():
        if name not in available or available[name].folder.name != folder:
            raise UsageError(
                f"The run began with embeddings of {name} from the cache '{folder}', which is gone.",
                "Build it again with `ccl cache build`, or start a new run.",
            )
    trainer.use_caches({name: available[name] for name in folders})
