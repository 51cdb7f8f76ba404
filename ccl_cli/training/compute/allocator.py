"""Memory of a process that computes on a CPU: what is freed is kept, where the C library is glibc.

Left alone, glibc returns large blocks to the system as soon as they are free, and the system clears every
page before it hands it out again: a third of the time of a step of R(2+1)D in bf16, which asks for gigabytes.

What outlives a training step (parameters, momentum) must not lie among the blocks that are kept: it would
cut them into pieces that nothing fits. So a trainer's first blocks come straight from the system, one by one.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping

# Numbers of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ALL, _OWN_MAPPING = -1, 128 * 1024
# The heap makes no room for a block above this: it gets a free place there, or comes from the system. Without
# a bound a step of R(2+1)D in bf16 holds a third more memory than with nothing kept, with this one a tenth.
_GROWS_FOR = 32 * 1024**2


def separate_blocks() -> None:
    """Take every block of 128 KiB or more straight from the system, and return it there."""
    _set(_MMAP_THRESHOLD, _OWN_MAPPING)


def keep_blocks() -> None:
    """Keep what is freed from now on, for later requests. Cheap: may be called after every step."""
    _set(_TRIM_THRESHOLD, _ALL)
    _set(_MMAP_THRESHOLD, _GROWS_FOR)


def _set(parameter: int, value: int) -> None:
    if sys.platform == "linux" and not _chosen_by_user(os.environ):
        mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none
            mallopt(parameter, value)


def _chosen_by_user(environment: Mapping[str, str]) -> bool:
    """Whether glibc has its settings from the environment already."""
    return "glibc.malloc" in environment.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") for name in environment
    )
