"""Load weights files into students; only the classifier may differ."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten

from torch import Tensor, nn

from ccl_cli.errors import WeightsError
from ccl_cli.students import Student
from ccl_cli.teachers.weights import load_state

Convert = Callable[[dict[str, Tensor]], dict[str, Tensor]]
_log = logging.getLogger("ccl")


def fill_student(
    student: Student,
    network: nn.Module,
    file: str | None,
    classifier: str | None = None,
    convert: Convert = dict,
) -> None:
    """Give a student built from a network's layers its classifier, and load a file into it.

    A classifier that is missing in the file, or has another number of classes, keeps its random weights, and
    a warning is logged.

    Args:
        student: Student, whose parameter names are those of a model written by ccl.
        network: Network with the parameter names of published files; it shares its layers with the student.
        file: Weights file, or None to keep the random weights.
        classifier: Name of the network's last linear layer, if it becomes the student's classifier.
        convert: Converts the tensors of a published file to the network's.

    Raises:
        WeightsError: the file is missing, damaged, belongs to another network, or contains more than tensors.
    """
    if classifier:
        student.classifier = network.get_submodule(classifier)
    if file is None:
        return
    path = Path(file).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file '{path}' for the student.", "Correct the path after '@'."
        )
    state = load_state(path)
    if state.keys() <= student.state_dict().keys():
        _load(student, state, file, "classifier")
    else:
        _load(network, convert(state), file, classifier or "classifier")


def _load(network: nn.Module, state: dict[str, Tensor], source: str, classifier: str) -> None:
    own, weight = network.state_dict(), f"{classifier}.weight"
    stored, wanted = (len(tensors[weight]) if weight in tensors else None for tensors in (state, own))
    if stored != wanted:
        what = "no classifier" if stored is None else f"another classifier, of {stored} classes"
        _log.warning("'%s' has %s: all other weights are loaded.", source, what)
        state |= {key: own[key] for key in (weight, f"{classifier}.bias")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(
            f"'{source}' contains the weights of another network: {shorten(str(error), 400)}",
            "Use the student that the file was saved from.",
        ) from error
