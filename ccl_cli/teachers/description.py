"""What is known of a teacher before it is trained with, where its weights are here or not."""

from __future__ import annotations

import logging

import torch

from ccl_cli.config.spec import Spec
from ccl_cli.errors import CclError, SystemSetupError, WeightsError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.weights import WeightFile, locate

_log = logging.getLogger("ccl")


def describe_network(cls: type[Teacher], spec: Spec) -> dict[str, int | str]:
    """``dim``, the width of a teacher's embedding, or why it is not known.

    It comes from a network without storage. A teacher that needs the weights that ``spec`` names is built
    with them; of that one ``variant`` tells which network, revision and options the name stands for.

    Raises:
        PluginError: an option is wrong.
    """
    options = spec.options | {"weights": "random"}
    try:
        with torch.device("meta"):
            return {"dim": cls.from_spec(Spec(spec.kind, spec.name, None, options)).dim}
    except Exception as error:  # a plugin need not know weights=random
        _log.debug("%s cannot be built without weights: %s", spec.label, error)
    if not spec.weights:
        return {"dim": "known once its weights are here"}
    try:
        teacher = cls.from_spec(spec)
    except (WeightsError, SystemSetupError) as error:
        return {"dim": f"not known. {error.message}"}
    return {"dim": teacher.dim, "variant": teacher.variant}


def describe_weights(file: WeightFile, spec: Spec) -> dict[str, str]:
    """A file of a teacher's weights: its name, where it is or belongs, its address and its licence."""
    try:
        place = f"{locate(Spec(spec.kind, spec.name, None, spec.options), file)}"
    except CclError:
        place = f"not here yet; `ccl teachers pull '{spec}'` puts it at {file.path}"
    licence = ", ".join(filter(None, [file.licence, file.note]))
    return {"file": file.filename, "place": place, "address": f"{file.address}", "licence": licence}
