"""One cell of a benchmark, in a process of its own: train, evaluate, and leave figures or a reason."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccl_cli.bench.matrix import Cell
from ccl_cli.data.clips.workers import end_with_parent
from ccl_cli.errors import CclError, Interrupted, Several
from ccl_cli.training.run.folder import CELL, ERROR, LOG, RunFolder, read_json
from ccl_cli.utils import console
from ccl_cli.utils.files import write_text
from ccl_cli.utils.signals import STOPPING


@dataclass(frozen=True)
class Device:
    """Where a cell computes.

    Attributes:
        name: "cpu" or "gpu 0".
        environment: What makes a process see that device only.
        threads: Threads of a process without a GPU; None: torch's default.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None


def run_cell(cell: Cell, folder: Path, device: Device) -> None:
    """Train what is left of a cell and evaluate it; the target of a process.

    The exit code is 0, or that of the error, which is also left in the folder.
    """
    os.setsid()  # a Ctrl-C in the terminal reaches the benchmark, which passes it on
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()
    _redirect_output(folder / LOG)
    os.environ.update(device.environment)
    console.configure()
    code = 0
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # one that came since the start is raised here
        _finish(cell, folder, device.threads)
    except KeyboardInterrupt:
        code = Interrupted.exit_code
    except BaseException as error:
        code = console.report(error)
        if not isinstance(error, Interrupted):
            write_error(folder, error, code)
    with suppress(OSError):  # the log may lie on a full disk
        sys.stdout.flush()
        sys.stderr.flush()
    raise SystemExit(code)


def figures(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """A finished cell's evaluation: ``recognition`` and ``retrieval``, in percent; else None."""
    run = RunFolder(folder)
    if not _trained(cell, run):
        return None
    evaluations: dict[str, dict[str, Any]] = run.summary.get("evaluation", {})
    return next((each for name, each in evaluations.items() if name.endswith(f"-{_split(cell)}")), None)


def write_error(folder: Path, error: BaseException, code: int) -> None:
    """Write why a cell failed, for the tables and for readers of the folder, if the disk takes it."""
    first = error.errors[0] if isinstance(error, Several) else error
    message = first.message if isinstance(first, CclError) else f"{type(error).__name__}: {error}"
    hint = first.hint if isinstance(first, CclError) else None
    with suppress(OSError):
        write_text(folder / ERROR, json.dumps({"message": message, "hint": hint, "exit_code": code}) + "\n")


def reason(folder: Path) -> str:
    """Why a cell failed, in one sentence; "" when nothing is known."""
    return str(read_json(folder / ERROR).get("message", ""))


def failed_at(folder: Path) -> int | None:
    """When a cell failed last, in nanoseconds of the disk's clock; None: it has not since it last began."""
    try:
        return (folder / ERROR).stat().st_mtime_ns
    except OSError:
        return None


def _finish(cell: Cell, folder: Path, threads: int | None) -> None:
    import torch

    from ccl_cli.evaluation.evaluate import evaluate
    from ccl_cli.training.train import train

    if threads:
        torch.set_num_threads(threads)
    (folder / ERROR).unlink(missing_ok=True)
    write_text(folder / CELL, json.dumps(cell.record) + "\n")
    if not _trained(cell, RunFolder(folder)):
        train(cell.recipe, resume="auto", output=folder)
    evaluate(folder, split=_split(cell))


def _trained(cell: Cell, run: RunFolder) -> bool:
    limit = cell.recipe.train.max_steps
    return run.finished or 0 < limit <= run.summary.get("steps", 0)


def _split(cell: Cell) -> str:
    return "val" if cell.phase == "tune" else "test"


def _redirect_output(path: Path) -> None:
    """Write everything that this process and its children print to a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
