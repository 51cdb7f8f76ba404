"""What the benchmark scripts share: time in turns, memory in processes of their own, Markdown."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_BUSY = 0.2  # other work on the machine, in cores, from which on a figure is called taken on a busy machine


def heading(title: str, *packages: str) -> None:
    """Begin a section: what was run, where, when, on which versions, and what else the machine was doing."""
    from importlib.metadata import version

    cores = busy_cores()
    state = "busy" if cores > _BUSY else "idle"
    busy = f"{state}: {cores:.1f} cores were at work before the start"
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    script = Path(sys.argv[0]).resolve()
    command = shlex.join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]])
    print(f"## {title}\n\n    {command}\n")
    print(f"{time.strftime('%d %B %Y').lstrip('0')}. {machine()}; {busy}.")
    print(f"Python {platform.python_version()}, {versions}.\n", flush=True)


def add_clock(parser: argparse.ArgumentParser) -> None:
    """Let the caller choose the clock; :func:`clock` obeys."""
    parser.add_argument(
        "--processor",
        action="store_true",
        help="Processor time instead of the time that passes: for a busy machine, with OMP_NUM_THREADS=1.",
    )


def clock() -> float:
    """Seconds that have passed, or with ``--processor`` those that this process has computed."""
    return time.process_time() if "--processor" in sys.argv else time.perf_counter()


def unit() -> str:
    """What :func:`clock` counts."""
    return "processor seconds" if "--processor" in sys.argv else "seconds"


def alternately(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each round, A B A B: what disturbs the machine disturbs all. One warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(rounds + 1):
        for name, work in works.items():
            begin = clock()
            work()
            if round_:
                seconds[name].append(clock() - begin)
    return seconds


def in_process(*arguments: object) -> dict[str, Any]:
    """Run this script again with other arguments; what it prints last, as JSON."""
    command = [sys.executable, sys.argv[0], *map(str, arguments)]
    command += ["--processor"] if "--processor" in sys.argv else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory(anew: bool = False) -> int:
    """The most memory that this process has held so far, in bytes (Linux); ``anew``: from now on."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    # Not getrusage: its figure starts with that of the process which started this one.
    return _field("/proc/self/status", "VmHWM")


def busy_cores(seconds: float = 3.0) -> float:
    """Cores that work, of whatever program, while this one waits (Linux)."""

    def spent() -> tuple[int, int]:
        ticks = [int(field) for field in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
        return sum(ticks), ticks[3] + ticks[4]  # of the latter nothing was done, or a disk was waited for

    (all_before, idle_before), _ = spent(), time.sleep(seconds)
    all_after, idle_after = spent()
    return (os.cpu_count() or 1) * (1 - (idle_after - idle_before) / (all_after - all_before))


def available_memory() -> int:
    """Memory that could be used now without swapping, in bytes (Linux)."""
    return _field("/proc/meminfo", "MemAvailable")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print :func:`table_text`."""
    print(table_text(columns, rows), end="\n\n", flush=True)


def table_text(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column to the left, numbers to the right."""
    text = [list(map(str, row)) for row in [columns, *rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(columns))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for first, *rest in [text[0], rule, *text[1:]]:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def megabytes(size: float) -> str:
    """Bytes as MB."""
    return figure(size / 1e6)


def median(values: Sequence[float]) -> float:
    """Of the rounds."""
    return statistics.median(values)


def machine() -> str:
    """Its processor and how much of it this run uses (Linux)."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in reversed(info) if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", "").split())
    has = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    # Names hide generations: of two kinds of "AMD EPYC" one is twice as fast in bf16.
    name, family, model = (fields.get(key, "?") for key in ("model name", "cpu family", "model"))
    kind = f"{name}, family {family} model {model} ({', '.join(has)})"
    return f"{os.cpu_count()} cores of {kind}, OMP_NUM_THREADS {threads}"


def _field(file: str, name: str) -> int:
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
