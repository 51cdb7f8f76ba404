"""Run one work item in its own process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from ccl_cli.errors import Interrupted
from ccl_cli.executors.work import ERROR, LOG, write_error
from ccl_cli.utils import console
from ccl_cli.utils.processes import end_with_parent
from ccl_cli.utils.signals import STOPPING


@dataclass(frozen=True)
class Device:
    """Device of an item.

    Attributes:
        name: "cpu" or "gpu 0".
        environment: Variables that restrict a process to this device.
        threads: Threads of a process without a GPU. Default: torch's default.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None


def run_item(function: str, item: Any, folder: Path, device: Device) -> None:
    """Call a function with an item; target of a process.

    The exit code is 0 or that of the error, which is also written to the item's folder.
    """
    os.setsid()  # the executor receives Ctrl-C from the terminal and forwards it
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()
    _redirect_output(folder / LOG)
    os.environ.update(device.environment)
    console.configure()
    code = 0
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # pending signals are raised here
        (folder / ERROR).unlink(missing_ok=True)
        if device.threads is not None:
            _limit_threads(device.threads)
        resolve_name(function)(item)
    except KeyboardInterrupt:
        code = Interrupted.exit_code
    except BaseException as error:
        code = console.report(error)
        if not isinstance(error, Interrupted):
            write_error(folder, error, code)
    with suppress(OSError):  # the disk may be full
        sys.stdout.flush()
        sys.stderr.flush()
    raise SystemExit(code)


def _limit_threads(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # the fork server imported torch without a thread limit
        import torch

        torch.set_num_threads(threads)


def _redirect_output(path: Path) -> None:
    """Redirect the output of this process and its children to a file."""
    with path.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
