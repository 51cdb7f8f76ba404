"""Run the speed benchmarks and write what each prints to benchmarks/results/speed_NAME.md.

    python benchmarks/table.py                  # all of them; an hour on two cores
    python benchmarks/table.py loss start       # some; the others stay as they were
    python benchmarks/table.py loss --rounds=3  # other options are passed to the benchmarks

A record has the command, the date, the machine and the versions. docs/speed.md has one table of each and is
written by hand: update it after a measurement. speed_NAME_WORD.md is of another machine, moved there by hand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from ccl_cli.utils.files import write_text

HERE = Path(__file__).resolve().parent
# In the order of docs/speed.md.
BENCHMARKS = {
    "step": [],
    "precision": [],
    "method_overhead": [],
    "wait": [],
    "loss": [],
    "retrieval": ["--paper", "--rounds", "2"],
    "start": ["--imports"],
    "growth": ["--plot", "docs/images/growth.png"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Of {', '.join(BENCHMARKS)}; default: all.")
    options, passed = parser.parse_known_args()
    for name in options.names or BENCHMARKS:
        command = [sys.executable, str(HERE / f"{name}.py"), *BENCHMARKS[name], *passed]
        said = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True).stdout
        write_text(HERE / "results" / f"speed_{name}.md", said.rstrip() + "\n")
        print(said, flush=True)


if __name__ == "__main__":
    main()
