"""Description of teachers, with or without local weights."""

from __future__ import annotations

import logging

import torch

from ccl_cli.config.spec import Spec
from ccl_cli.errors import CclError, SystemSetupError, WeightsError
from ccl_cli.teachers import Teacher
from ccl_cli.teachers.weights import WeightFile, locate

_log = logging.getLogger("ccl")


def describe_network(cls: type[Teacher], spec: Spec) -> dict[str, int | str]:
    """Return the embedding dimension ``dim``, or the reason why it is unknown.

    The network is built on the meta device. A teacher that requires the weights in ``spec`` is built with
    them, and its ``variant`` gives network, revision and options.

    Raises:
        PluginError: an option is invalid.
    """
    options = spec.options | {"weights": "random"}
    try:
        with torch.device("meta"):
            return {"dim": cls.from_spec(Spec(spec.kind, spec.name, None, options)).dim}
    except Exception as error:  # a plugin may not support weights=random
        _log.debug("%s cannot be built without weights: %s", spec.label, error)
    if not spec.weights:
        return {"dim": "known once its weights are downloaded"}
    try:
        teacher = cls.from_spec(spec)
    except (WeightsError, SystemSetupError) as error:
        return {"dim": f"unknown. {error.message}"}
    return {"dim": teacher.dim, "variant": teacher.variant}


def describe_weights(file: WeightFile, spec: Spec) -> dict[str, str]:
    """Describe a weights file: name, local path, URL and licence."""
    try:
        place = f"{locate(Spec(spec.kind, spec.name, None, spec.options), file)}"
    except CclError:
        place = f"not downloaded; `ccl teachers pull '{spec}'` saves it to {file.path}"
    licence = ", ".join(filter(None, [file.licence, file.note]))
    return {"file": file.filename, "place": place, "address": f"{file.address}", "licence": licence}
