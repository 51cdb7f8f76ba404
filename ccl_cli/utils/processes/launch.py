"""``--num-processes N``: start and supervise N copies of this command on this machine.

The launchers of torch and accelerate work too, but exit with code 1 for every error.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from ccl_cli.errors import Interrupted, SystemSetupError
from ccl_cli.utils.console import LAUNCHED, LOST_PEER
from ccl_cli.utils.signals import handled_by

_SETTLE, _SAVE, _GRACE, _POLL = 3.0, 60.0, 15.0, 0.05  # seconds
_TAIL = 4000  # characters
_PR_SET_PDEATHSIG = 1
_log = logging.getLogger("ccl.launch")


@dataclass
class _Rank:
    """One process. Only the first writes to the terminal; the output of the others goes to ``output``."""

    number: int
    process: subprocess.Popen[bytes]
    output: IO[bytes] | None

    @property
    def code(self) -> int | None:
        """Exit code, 128 + n if ended by signal n, or None while the process runs."""
        code = self.process.poll()
        return 128 - code if code is not None and code < 0 else code


def must_launch(count: int) -> bool:
    """Return whether this process must launch others, and is not itself one of them."""
    return count > 1 and "LOCAL_RANK" not in os.environ


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run ``python -m ccl_cli <arguments>`` in ``count`` connected processes.

    SIGINT, SIGTERM and SIGUSR1 are forwarded; processes that have not ended after a time limit are killed. If
    one process fails, the others are stopped within seconds.

    Returns:
        0, or the exit code of the first process that failed.

    Raises:
        SystemSetupError: there are fewer GPUs than processes.
    """
    shared = _environment(count, cpu=_on_cpu(count))
    ranks: list[_Rank] = []
    with ExitStack() as stack, _forwarding_signals(ranks) as signals:
        for number in range(count):
            ranks.append(_start(number, shared, arguments, stack))
        culprit = _watch(ranks, signals)
        if culprit is None:
            return 0
        code = culprit.code or 1
        if not signals or code != Interrupted.exit_code:
            _report(culprit, ranks)
        return SystemSetupError.exit_code if code == LOST_PEER else code


def _start(number: int, shared: dict[str, str], arguments: Sequence[str], stack: ExitStack) -> _Rank:
    output = stack.enter_context(tempfile.TemporaryFile()) if number else None  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, *_safe_path(), "-m", "ccl_cli", *arguments],
        env=os.environ | shared | {"RANK": str(number), "LOCAL_RANK": str(number)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # otherwise each process would receive a Ctrl-C twice
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    rank = _Rank(number, process, output)
    stack.callback(_reap, rank)
    return rank


def _safe_path() -> list[str]:
    # -m would put the working directory first on the path, where a queue.py would shadow the standard
    # library.
    return [] if {"", str(Path.cwd())} & set(sys.path) else ["-P"]


def _environment(count: int, *, cpu: bool) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // count)
    return {
        LAUNCHED: "1",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        **({"ACCELERATE_USE_CPU": "true"} if cpu else {}),
    }


def _on_cpu(count: int) -> bool:
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return True
    import torch

    gpus = torch.cuda.device_count()
    if not gpus:
        return True
    if count > gpus:
        raise SystemSetupError(
            f"{count} processes need {count} GPUs, and there {'is' if gpus == 1 else 'are'} {gpus}.",
            f"Use --num-processes {gpus}, or set ACCELERATE_USE_CPU=true.",
        )
    return False


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _end_with_parent() -> None:
    # If the launcher is killed, its processes must end too, because they occupy the GPUs.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _forwarding_signals(ranks: Sequence[_Rank]) -> Iterator[list[int]]:
    """Forward signals to all processes, and yield the received signals. The third Ctrl-C kills."""
    signals: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        _send(ranks, signal.SIGKILL if signals.count(signal.SIGINT) > 2 else number)

    with handled_by(forward):
        yield signals


def _watch(ranks: Sequence[_Rank], signals: Sequence[int]) -> _Rank | None:
    """Wait for all processes, with a time limit after a failure or signal; return the failed one, or None."""
    while _running(ranks) and not signals and _failed(ranks) is None:
        time.sleep(_POLL)
    culprit = _failed(ranks)
    # First wait without signals: an error in all processes ends them all, and the first prints it.
    _wait(ranks, _SAVE if signals else _SETTLE)
    culprit = _failed(ranks, culprit)
    for number in (signal.SIGTERM, signal.SIGKILL):
        _send(_running(ranks), number)
        _wait(ranks, _GRACE)
    return _failed(ranks, culprit)


def _send(ranks: Sequence[_Rank], number: int) -> None:
    for rank in ranks:
        rank.process.send_signal(number)


def _running(ranks: Sequence[_Rank]) -> list[_Rank]:
    return [rank for rank in ranks if rank.code is None]


def _failed(ranks: Sequence[_Rank], suspect: _Rank | None = None) -> _Rank | None:
    """Return the process that caused the failure, preferably not one that only lost its connection."""
    failed = [*filter(None, [suspect]), *(rank for rank in ranks if rank.code)]
    return min(failed, key=lambda rank: rank.code == LOST_PEER, default=None)


def _wait(ranks: Sequence[_Rank], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and _running(ranks):
        time.sleep(_POLL)


def _report(culprit: _Rank, ranks: Sequence[_Rank]) -> None:
    """Log which process failed and show its output, unless the terminal already shows it."""
    code = culprit.process.returncode
    if ranks[0].code == code:
        return
    if culprit.output is not None:
        culprit.output.seek(0)
        print(culprit.output.read().decode(errors="replace").strip()[-_TAIL:], file=sys.stderr)
    _log.error("Process %d of %d failed first, exit code %s.", culprit.number, len(ranks), culprit.code)
    if code < 0:
        name = signal.Signals(-code).name
        _log.error("It was ended by %s; memory may have run out. Saved checkpoints are kept.", name)


def _reap(rank: _Rank) -> None:
    rank.process.kill()
    rank.process.wait()
