"""Load weights files into students; only the classifier may differ."""

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
    """Read the weights file that follows ``@`` in a student's name.

    Raises:
        WeightsError: the file is missing or damaged, or contains more than tensors.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file '{path}' for the student.", "Correct the path after '@'."
        )
    return load_state(path)


def load_weights(
    network: nn.Module, state: Mapping[str, Tensor], source: str, *, classifier: str = "classifier"
) -> None:
    """Copy ``state`` into ``network``.

    A classifier that is missing in the state, or has another number of classes, keeps its random weights, and
    a warning is logged.

    Args:
        network: Network to modify in place.
        state: Tensors by the network's parameter names.
        source: Source file, for messages.
        classifier: Name of the network's last linear layer.

    Raises:
        WeightsError: tensors other than the classifier do not match; nothing is copied.
    """
    own, state = network.state_dict(), dict(state)
    weight = f"{classifier}.weight"
    stored, wanted = (len(tensors[weight]) if weight in tensors else None for tensors in (state, own))
    if stored != wanted:
        state |= {key: own[key] for key in (weight, f"{classifier}.bias")}
    _check(own, state, source)
    network.load_state_dict(own | state)
    if stored != wanted:
        what = "no classifier" if stored is None else f"another classifier, of {stored} classes"
        log.warning("'%s' has %s: all other weights are loaded.", source, what)


def fill_student(
    student: nn.Module,
    network: nn.Module,
    file: str | None,
    classifier: str = "classifier",
    convert: Convert = dict,
) -> None:
    """Load a model written by ccl, or a published file, into a student built from a network's layers.

    Args:
        student: Student to load a model written by ccl into.
        network: Network with the parameter names of published files; it shares its layers with the student.
        file: Weights file, or None to keep the random weights.
        classifier: Name of the network's last linear layer.
        convert: Converts the tensors of a published file to the network's.

    Raises:
        WeightsError: the file is missing, damaged, or belongs to another network.
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
        # Step counters of batch norm are unused, and missing in old files.
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
            f"'{source}' contains the weights of another network: {'; '.join(differences)}.",
            "Use the student that the file was saved from.",
        )


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
