"""Errors in reading a video: those of the video itself, which is then left out, and those of the machine."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ccl_cli.errors import CclError, DataError, SystemSetupError

# Too many open files, or a lost network disk. Not EIO: FFmpeg reports it for damaged files, and a bad sector
# affects one file.
_OF_THE_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT}


@contextmanager
def blaming_video(location: object, fault: str = "cannot be read") -> Iterator[None]:
    """Convert any error in reading a video to a CclError.

    Raises:
        DataError: any error of a decoder. Training, evaluation, caches and packing then leave the video out.
        SystemSetupError: the machine has no memory or file handles left, or its disk is lost.
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
        raise DataError(f"'{location}' {fault}: {reason}.") from error


def is_of_the_machine(error: Exception) -> bool:
    """Whether an error is caused by the machine and not by the video."""
    # Not FFmpeg's own MemoryError: a damaged header may make it request any amount.
    return type(error) is MemoryError or getattr(error, "errno", None) in _OF_THE_MACHINE
