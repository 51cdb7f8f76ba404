"""How long it takes until something happens: help, listings, completion, the first step of training.

    python benchmarks/start.py [--rounds 10] [--train-rounds 3] [--imports]

Each command is a process of its own, in turns, beside `python -c pass`. Besides the time that passes, the
processor time of the command and of the processes that it waited for: other work on the machine changes that
one little. --imports adds the modules that take longest to import on the way to the first step
(-X importtime; what a module imports counts to it too).
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import arguments, figure, heading, median, table

CCL = [sys.executable, "-m", "ccl_cli"]
COMPLETE = {"_CCL_COMPLETE": "complete_bash", "COMP_WORDS": "ccl train --recipe ucf51-", "COMP_CWORD": "3"}
QUICK: dict[str, tuple[list[str], dict[str, str]]] = {
    "python -c pass": ([sys.executable, "-c", "pass"], {}),
    "ccl --help": ([*CCL, "--help"], {}),
    "ccl train --help": ([*CCL, "train", "--help"], {}),
    "ccl recipes ls": ([*CCL, "recipes", "ls"], {}),
    "ccl plugins ls": ([*CCL, "plugins", "ls"], {}),
    "completion of a recipe's name": (CCL, COMPLETE),
}
TORCH: dict[str, tuple[list[str], dict[str, str]]] = {
    "python -c 'import torch'": ([sys.executable, "-c", "import torch"], {}),
    "ccl train --recipe smoke --max-steps 1": ([*CCL, "train", "--recipe", "smoke", "--max-steps", "1"], {}),
}


def timed(command: list[str], extra: dict[str, str]) -> tuple[float, float]:
    """Seconds that pass, and processor seconds."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=os.environ | extra, capture_output=True, check=True)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(commands: dict[str, tuple[list[str], dict[str, str]]], rounds: int) -> None:
    taken = [{name: timed(*command) for name, command in commands.items()} for _ in range(rounds + 1)]
    # The first round reads the files from the disk, and writes what is written once.
    rows = [
        [name, *(figure(median(turn[name][at] for turn in taken[1:])) for at in (0, 1))] for name in commands
    ]
    table(["command", "s", "processor s"], rows)


def imports(count: int = 12) -> None:
    command = [sys.executable, "-X", "importtime", *TORCH["ccl train --recipe smoke --max-steps 1"][0][1:]]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.findall(r"^import time: +(\d+) \| +(\d+) \| ( *)(\S+)$", said, re.MULTILINE)
    # Only what stands outermost, or within our own: the rest is counted in those already.
    outer = [
        (int(total), name) for _, total, indent, name in found if len(indent) <= 2 or name.startswith("ccl_")
    ]
    rows = [[name, f"{total / 1000:,.0f}"] for total, name in sorted(outer, reverse=True)[:count]]
    print("Imports, the processes that read the videos included:\n")
    table(["module", "ms"], rows)


def main() -> None:
    options = arguments(__doc__, rounds=10, train_rounds=3, imports=False)
    heading("Start", "typer", "torch")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"CCL_HOME": folder, "CCL_RUNS": str(Path(folder) / "runs")}
        print(f"Median of {options.rounds} runs in turns.\n")
        measure(QUICK, options.rounds)
        print(
            f"Median of {options.train_rounds} runs in turns. The training run takes one step of 8 clips, "
            "saves its model\nand ends; its clips, which ccl writes itself, are there already.\n"
        )
        measure(TORCH, options.train_rounds)
        if options.imports:
            imports()


if __name__ == "__main__":
    main()
