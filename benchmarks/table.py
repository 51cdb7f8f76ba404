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
RESULTS = HERE / "results"
# In the order of docs/speed.md. A script that is not there is left out.
BENCHMARKS = {
    "step": ["step.py"],
    "precision": ["precision.py"],
    "method_overhead": ["method_overhead.py"],
    "wait": ["wait.py"],
    "loss": ["loss.py"],
    "retrieval": ["retrieval.py", "--paper", "--rounds", "2"],
    "start": ["start.py", "--imports"],
    "growth": ["growth.py", "--plot", "docs/images/growth.png"],
}


def main() -> None:
    present = [name for name, (script, *_) in BENCHMARKS.items() if (HERE / script).is_file()]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Of {', '.join(present)}; default: all.")
    options, passed = parser.parse_known_args()
    if unknown := sorted(set(options.names) - set(present)):
        parser.error(f"there is no benchmark '{unknown[0]}'")
    for name in options.names or present:
        script, *arguments = BENCHMARKS[name]
        command = [sys.executable, str(HERE / script), *arguments, *passed]
        said = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True).stdout
        write_text(result(name), said.rstrip() + "\n")
        print(said, flush=True)


def result(name: str) -> Path:
    return RESULTS / f"speed_{name}.md"


if __name__ == "__main__":
    main()
