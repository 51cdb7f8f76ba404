"""Whose fault it is that a video cannot be read: its own, which costs the video, or the machine's."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ccl_cli.errors import CclError, DataError, SystemSetupError

# Too many open files, or a network's disk that is gone. Not EIO: FFmpeg says so of damaged files, and one bad
# sector is the fault of one file.
_OF_THE_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT}


@contextmanager
def blaming_video(location: object) -> Iterator[None]:
    """Around whatever reads a video: turn any error that is not ours into one of ours.

    Training, evaluation, caches and packing pass over a video by its DataError. Every other error ends them.

    Args:
        location: The video, as errors name it.

    Raises:
        DataError: whatever a decoder says of the video, foreseen or not.
        SystemSetupError: the machine has no memory or files left, or its disk is gone.
    """
    try:
        yield
    except CclError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        if is_of_the_machine(error):
            raise SystemSetupError(
                f"'{location}' cannot be read: {reason}.",
                "Look at the machine's memory, its disks and its limit of open files (`ulimit -n`).",
            ) from error
        raise DataError(f"'{location}' cannot be read: {reason}.") from error


def is_of_the_machine(error: Exception) -> bool:
    """Whether an error says nothing of the video that was being read."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _OF_THE_MACHINE
