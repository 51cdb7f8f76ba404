"""What the benchmark scripts share: options, time in turns, processes of their own, Markdown."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")
_BUSY = 0.2  # other work on the machine, in cores, from which on a figure is called taken on a busy machine


def arguments(doc: str | None, *positional: tuple[str, Any], **defaults: Any) -> argparse.Namespace:
    """Parse options of these names and defaults; a list takes several values, False is a flag.

    ``--processor`` is always one: processor time instead of the time that passes, for a busy machine, with
    OMP_NUM_THREADS=1. :func:`clock` obeys it.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, settings in positional:
        parser.add_argument(name, **settings)
    for name, default in {**defaults, "processor": False}.items():
        option = f"--{name.replace('_', '-')}"
        if default is False:
            parser.add_argument(option, action="store_true")
        elif isinstance(default, list):
            parser.add_argument(option, nargs="+", type=type(default[0]), default=default)
        else:
            parser.add_argument(option, type=type(default), default=default)
    return parser.parse_args()


def heading(title: str, *packages: str) -> None:
    """Begin a section: what was run, where, when, on which versions, and what else the machine was doing."""
    cores = psutil.cpu_percent(interval=3) / 100 * (os.cpu_count() or 1)
    busy = f"{'busy' if cores > _BUSY else 'idle'}: {cores:.1f} cores were at work before the start"
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    script = Path(sys.argv[0]).resolve()
    command = shlex.join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]])
    print(f"## {title}\n\n    {command}\n")
    print(f"{time.strftime('%d %B %Y').lstrip('0')}. {machine()}; {busy}.")
    print(f"Python {platform.python_version()}, {versions}.\n", flush=True)


def machine() -> str:
    """Its processor and how much of it this run uses (Linux)."""
    lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    fields = {key.strip(): value.strip() for key, value in reversed(lines)}
    has = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in fields.get("flags", "")]
    # Names hide generations: of two kinds of "AMD EPYC" one is twice as fast in bf16.
    name, family, model = (fields.get(key, "?") for key in ("model name", "cpu family", "model"))
    kind = f"{name}, family {family} model {model} ({', '.join(has)})"
    return f"{os.cpu_count()} cores of {kind}, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'all')}"


def clock() -> float:
    """Seconds that have passed, or with ``--processor`` those that this process has computed."""
    return time.process_time() if "--processor" in sys.argv else time.perf_counter()


def unit() -> str:
    """What :func:`clock` counts."""
    return "processor seconds" if "--processor" in sys.argv else "seconds"


def seconds(work: Callable[[], object]) -> float:
    """How long a work takes."""
    begin = clock()
    work()
    return clock() - begin


def alternately(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each round, A B A B: what disturbs the machine disturbs all. One warm-up."""
    taken = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds + 1)]
    return {name: [each[name] for each in taken[1:]] for name in works}


def in_process(work: Callable[..., T], *given: Any) -> T:
    """Do a work in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def in_turns(work: Callable[..., T], names: Iterable[Any], rounds: int, *given: Any) -> dict[Any, list[T]]:
    """Do the work of each name in each round, A B A B, each time in a process of its own."""
    results: dict[Any, list[T]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in results:
            results[name].append(in_process(work, name, *given))
    return results


def ccl(*given: object) -> None:
    """Run a command of ccl."""
    command = [sys.executable, "-m", "ccl_cli", *map(str, given), "--quiet"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def peak_memory(anew: bool = False) -> int:
    """The most memory that this process has held so far, in bytes (Linux); ``anew``: from now on."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    # Not getrusage: its figure starts with that of the process which started this one.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print :func:`table_text`."""
    print(table_text(columns, rows), end="\n\n", flush=True)


def table_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column to the left, numbers to the right."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [columns, rule, *rows])


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def megabytes(size: float) -> str:
    """Bytes as MB."""
    return figure(size / 1e6)


def median(values: Iterable[float]) -> float:
    """Of the rounds."""
    return statistics.median(values)
