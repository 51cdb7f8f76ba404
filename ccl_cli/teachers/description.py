"""What is known of a teacher without its weights."""

from __future__ import annotations

import logging

import torch

from ccl_cli.config.spec import Spec
from ccl_cli.errors import CclError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.weights import WeightFile, locate

_log = logging.getLogger("ccl")


def dim_of(cls: type[Teacher], spec: Spec) -> int | str:
    """The width of a teacher's embedding, from a network without storage; or why it is not known."""
    options = spec.options | {"weights": "random"}
    try:
        with torch.device("meta"):
            return cls.from_spec(Spec(spec.kind, spec.name, None, options)).dim
    except Exception as error:  # a plugin need not know weights=random
        _log.debug("%s cannot be built without weights: %s", spec.label, error)
        return "known once its weights are here"


def describe_weights(file: WeightFile, spec: Spec) -> dict[str, str]:
    """A file of a teacher's weights: its name, where it is or belongs, its address and its licence."""
    try:
        place = f"{locate(Spec(spec.kind, spec.name, None, spec.options), file)}"
    except CclError:
        place = f"not here yet; `ccl teachers pull '{spec}'` puts it at {file.path}"
    licence = ", ".join(filter(None, [file.licence, file.note]))
    return {"file": file.filename, "place": place, "address": f"{file.address}", "licence": licence}
