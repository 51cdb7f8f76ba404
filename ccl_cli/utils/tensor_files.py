"""Atomic writing of safetensors files."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ccl_cli.utils.files import atomic_path


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically.

    Args:
        path: Output file.
        tensors: Contiguous tensors by name, without shared memory.
        header: Metadata of the file.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(header) if header else None)
        except SafetensorError as error:  # its text contains the system's error
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code), str(path)) from error
