"""Memory on CPUs: freed memory is kept for reuse, if the C library is glibc.

By default, glibc returns large blocks to the system as soon as they are free, and the system clears every
page before it gives it out again: a third of the time of a step of R(2+1)D in bf16, which allocates
gigabytes.

Memory that outlives a training step (parameters, momentum) must not lie between the kept blocks, because it
would fragment them. The first blocks of a trainer are therefore allocated separately by the system.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Numbers of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ALL, _OWN_MAPPING = -1, 128 * 1024
# The heap does not grow for a larger block, which gets a free place in the heap or comes from the system.
# Without this bound a step of R(2+1)D in bf16 needs a third more memory than without keeping any; with it,
# a tenth more.
_GROWS_FOR = 32 * 1024**2


def separate_blocks() -> None:
    """Allocate every block of 128 KiB or more separately, and return it to the system when it is freed."""
    _set(_MMAP_THRESHOLD, _OWN_MAPPING)


def keep_blocks() -> None:
    """Keep memory that is freed from now on. Cheap enough to call after every step."""
    _set(_TRIM_THRESHOLD, _ALL)
    _set(_MMAP_THRESHOLD, _GROWS_FOR)


def _set(parameter: int, value: int) -> None:
    chosen_by_user = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") for name in os.environ
    )
    if sys.platform == "linux" and not chosen_by_user:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none
            mallopt(parameter, value)
