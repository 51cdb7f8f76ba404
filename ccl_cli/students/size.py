"""How large a student is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ccl_cli.students import Student

_CLASSES = 400  # of Kinetics, for which papers count parameters
_log = logging.getLogger("ccl")


def size(factory: Callable[[int], Student]) -> dict[str, Any]:
    """Parameters and cost of a student's network, which is built without storage.

    Args:
        factory: Makes a student of a number of classes.

    Returns:
        ``parameters`` with 400 classes, ``clip``, the usual one, and ``gmac``, a billion multiplications with
        their additions, of such a clip; nothing for a network that needs storage.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            student = factory(_CLASSES).eval()
            with FlopCounterMode(display=False) as counter:
                frames, side = student.usual_clip
                student(torch.empty(1, 3, frames, side, side))
    except Exception as error:  # a network of a plugin need not work without storage
        _log.debug("The size of %s is not known: %s", factory, error)
        return {}
    parameters = sum(parameter.numel() for parameter in student.parameters())
    gmac = round(counter.get_total_flops() / 2e9, 2)
    return {"parameters": parameters, "clip": f"{frames}x{side}", "gmac": gmac}
