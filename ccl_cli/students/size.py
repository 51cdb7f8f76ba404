"""How large a student is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_CLASSES = 400  # of Kinetics, for which papers count parameters
_CLIP = (1, 3, 16, 112, 112)
_log = logging.getLogger("ccl")


def size(factory: Callable[[int], nn.Module]) -> dict[str, Any]:
    """Parameters and cost of a student's network, which is built without storage.

    Args:
        factory: Makes a student of a number of classes.

    Returns:
        ``parameters`` with 400 classes, and ``gflop`` of a clip of 16 frames at 112 pixels, where a
        multiplication with its addition counts once; nothing for a network that needs storage.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            student = factory(_CLASSES).eval()
            with FlopCounterMode(display=False) as counter:
                student(torch.empty(_CLIP))
    except Exception as error:  # a network of a plugin need not work without storage
        _log.debug("The size of %s is not known: %s", factory, error)
        return {}
    parameters = sum(parameter.numel() for parameter in student.parameters())
    return {"parameters": parameters, "gflop": round(counter.get_total_flops() / 2e9, 2)}
