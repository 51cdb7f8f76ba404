"""Put a weights file into a network: everything must fit, except a classifier of other classes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from ccl_cli.errors import WeightsError
from ccl_cli.teachers.weights import load_state

Convert = Callable[[dict[str, Tensor]], dict[str, Tensor]]
log = logging.getLogger("ccl")


def read_weights(file: str) -> dict[str, Tensor]:
    """The tensors in the file that a student's spec names after ``@``.

    Raises:
        WeightsError: the file is absent or damaged, or holds more than tensors.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"There is no file '{path}' with weights for the student.", "Correct what follows '@'."
        )
    return load_state(path)


def load_weights(
    network: nn.Module, state: Mapping[str, Tensor], source: str, *, classifier: str = "classifier"
) -> None:
    """Copy ``state`` into ``network``.

    A classifier that the state lacks, or that was made for another number of classes, keeps its random
    weights, and a log line says so.

    Args:
        network: Changed in place.
        state: Tensors by the network's own names.
        source: The file they come from, for messages.
        classifier: Where the network's last linear layer is.

    Raises:
        WeightsError: anything but the classifier does not fit; then nothing is copied.
    """
    own, state = network.state_dict(), dict(state)
    weight = f"{classifier}.weight"
    stored, wanted = (len(tensors[weight]) if weight in tensors else None for tensors in (state, own))
    if stored != wanted:
        state |= {key: own[key] for key in (weight, f"{classifier}.bias")}
    _check(own, state, source)
    network.load_state_dict(own | state)
    if stored != wanted:
        what = "no classifier" if stored is None else f"a classifier of {stored} classes, which does not fit"
        log.warning("'%s' has %s: everything else is loaded.", source, what)


def fill_student(
    student: nn.Module,
    network: nn.Module,
    file: str | None,
    classifier: str = "classifier",
    convert: Convert = dict,
) -> None:
    """Put a model that ccl wrote, or a published file, into a student that is made of the network's layers.

    Args:
        student: Filled where the file has no names but its own.
        network: Whose names published files have; filling it fills the student.
        file: What the student's spec names after ``@``; None leaves the random weights.
        classifier: Where the network's last linear layer is.
        convert: Turns the tensors of a published file into the network's.

    Raises:
        WeightsError: the file is absent, damaged, or of another network.
    """
    if file is None:
        return
    state = read_weights(file)
    if state.keys() <= student.state_dict().keys():
        load_weights(student, state, file)
    else:
        load_weights(network, convert(state), file, classifier=classifier)


def _check(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    misfits = {
        # Batch norm's step counters are unused, and absent from old files.
        "missing": [key for key in own if key not in state and not key.endswith("num_batches_tracked")],
        "unknown": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {list(tensor.shape)} instead of {list(own[key].shape)}"
            for key, tensor in state.items()
            if key in own and tensor.shape != own[key].shape
        ],
    }
    differences = [
        f"{len(keys)} tensors are {what} ({_first(keys)})" for what, keys in misfits.items() if keys
    ]
    if differences:
        raise WeightsError(
            f"'{source}' holds the weights of another network: {'; '.join(differences)}.",
            "Name the student that the file was made for.",
        )


def _first(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")
