"""What an executor costs, and several drivers of one benchmark.

    python benchmarks/executors.py [--executors local slurm ray] [--rounds 3]
    python benchmarks/executors.py --drivers 4 [--cells 24]

The first measures work of 1 and of 65 items that do nothing but make a folder, two at once: the difference is
64 items. `slurm` needs `sbatch` on PATH. The second lets several processes run one benchmark in one folder at
once, and counts how often each cell ran.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

from measuring import arguments, figure, heading, median, table

from ccl_cli.config.recipe import Executor
from ccl_cli.executors import map_items
from ccl_cli.executors.work import Work

FEW, MANY = 1, 65
DATA = "clips?per_class=3&size=36&seconds=0.5"


class Silence:
    """Hears of items, and says nothing."""

    def began(self, name: str, place: str) -> None:
        pass

    def ended(self, name: str) -> None:
        pass


def seconds(executor: str, count: int) -> float:
    """How long so many items take that are nothing themselves."""
    with tempfile.TemporaryDirectory() as root:
        items = {f"{number:03}": str(Path(root) / f"made-{number}") for number in range(count)}
        work = Work("cost", Path(root) / "work", "os:mkdir", "os.path:isdir", items)
        begin = time.perf_counter()
        reasons = map_items(work, Executor(name=executor, jobs=2, tasks=2, poll=0.2), Silence())
        assert not reasons, reasons
        return time.perf_counter() - begin


def costs(executors: list[str], rounds: int) -> None:
    """Seconds of a work, and milliseconds of an item."""
    lines = []
    for executor in executors:
        few, many = (median(seconds(executor, count) for _ in range(rounds)) for count in (FEW, MANY))
        lines.append([executor, figure(few), figure(many), figure(1000 * (many - few) / (MANY - FEW))])
    table(["executor", f"{FEW} item, s", f"{MANY} items, s", "ms per item"], lines)


def benchmark(root: Path, cells: int) -> Path:
    """The recipe of a benchmark of so many cells of a few steps, and its teacher's embeddings."""
    import numpy as np  # here and not above: the process of each item imports this file
    import yaml

    from ccl_cli.data.sources import load_data

    names = [video.id for video in load_data(DATA).videos]
    vectors = np.random.default_rng(0).standard_normal((len(names), 8), dtype=np.float32)
    np.savez(root / "audio.npz", names=np.array(names), embedding=vectors)
    recipe = {
        "name": "drivers",
        "data": DATA,
        "student": "r2plus1d_tiny",
        "clip": {"frames": 4, "size": 32},
        "train": {"epochs": 1, "batch_size": 6, "workers": 0, "precision": "fp32"},
        "bench": {
            "setups": {"A": f"audio:precomputed@{root / 'audio.npz'}"},
            "methods": {"baseline": "baseline", "fitnet": "fitnet"},
            "seeds": list(range(cells // 2)),
        },
    }
    path = root / "bench.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def drive(path: Path, drivers: int) -> tuple[list[object], str]:
    """What became of one benchmark by so many drivers at once, and the tables that all of them print."""
    runs = path.with_name(f"runs-{drivers}")
    command = [sys.executable, "-m", "ccl_cli", "bench", str(path), "--executor", "local"]
    environment = os.environ | {"CCL_RUNS": str(runs)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    begin = time.perf_counter()
    started = [subprocess.Popen(command, env=environment, **pipes) for _ in range(drivers)]
    outputs = [process.communicate() for process in started]
    taken = time.perf_counter() - begin
    assert not any(process.returncode for process in started), outputs
    (tables,) = {out for out, _ in outputs}
    ran = [re.findall(r"(\S.*): top-1 .* \(\d+ s\)", log) for _, log in outputs]
    most = max(Counter(chain.from_iterable(ran)).values())
    made = len(list(runs.glob("*/*/model.safetensors")))
    return [drivers, figure(taken), made, " + ".join(str(len(names)) for names in ran), most], tables


def compare(drivers: list[int], cells: int) -> None:
    """A row for each number of drivers; their tables must be the same."""
    with tempfile.TemporaryDirectory() as root:
        path = benchmark(Path(root), cells)
        results = [drive(path, count) for count in drivers]
    table(["drivers", "s", "cells", "done by each", "most runs of a cell"], [row for row, _ in results])
    print(
        f"The tables of all {sum(drivers)} drivers are the same: {len({text for _, text in results}) == 1}."
    )


def main() -> None:
    options = arguments(__doc__, executors=["local", "slurm", "ray"], rounds=3, drivers=[0], cells=24)
    if any(options.drivers):
        heading("Several drivers of one benchmark", "torch")
        compare(options.drivers, options.cells)
    else:
        heading("What an executor costs", "torch", *(["ray"] if "ray" in options.executors else []))
        costs(options.executors, options.rounds)


if __name__ == "__main__":
    main()
