"""Parameters and computational cost of students."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ccl_cli.students import Student

_CLASSES = 400  # classes of Kinetics, the convention for parameter counts
_log = logging.getLogger("ccl")


def size(factory: Callable[[int], Student]) -> dict[str, Any]:
    """Count the parameters and operations of a student, on the meta device.

    Args:
        factory: Builds a student for a number of classes.

    Returns:
        ``parameters`` with 400 classes, ``clip``, and ``gmac``, the billions of multiply-accumulate
        operations per clip; empty for networks that do not run on the meta device.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            student = factory(_CLASSES).eval()
            with FlopCounterMode(display=False) as counter:
                frames, side = student.usual_clip
                student(torch.empty(1, 3, frames, side, side))
    except Exception as error:  # a plugin's network may not support the meta device
        _log.debug("The size of %s is unknown: %s", factory, error)
        return {}
    parameters = sum(parameter.numel() for parameter in student.parameters())
    gmac = round(counter.get_total_flops() / 2e9, 2)
    return {"parameters": parameters, "clip": f"{frames}x{side}", "gmac": gmac}
