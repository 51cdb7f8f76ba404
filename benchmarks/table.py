"""Run the speed benchmarks and write their tables, one after the other, to docs/speed.md.

    python benchmarks/table.py                  # all of them; an hour on two cores
    python benchmarks/table.py loss start       # some; the others stay as they were
    python benchmarks/table.py loss --rounds=3  # what is no option of its own goes to the benchmarks named
    python benchmarks/table.py --collect        # none: only write the document again

What each benchmark printed, its command, date, machine and versions among it, is kept under
benchmarks/results/ and copied from there. speed_NAME_WORD.md is of another machine, moved there by hand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from ccl_cli.utils.files import write_text

HERE = Path(__file__).resolve().parent
RESULTS, DOCUMENT = HERE / "results", HERE.parent / "docs" / "speed.md"
# In the order of the document. A script that is not there is left out.
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
PICTURES = {"growth": "![How cost grows with each of them](images/growth.png)\n"}
INTRODUCTION = """\
# How fast ccl is

Written by `python benchmarks/table.py` from what the benchmarks printed; each section names its own command.
A ratio says more than a time. Where a section calls the machine busy, other programs ran beside it, and even
ratios are rough. Reading videos has a page of its own, since it needs some:
`python benchmarks/input.py VIDEO...`, [results](../benchmarks/results/input.md).
"""


def main() -> None:
    present = [name for name, (script, *_) in BENCHMARKS.items() if (HERE / script).is_file()]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Of {', '.join(present)}; default: all.")
    parser.add_argument("--collect", action="store_true", help="Run nothing.")
    options, passed = parser.parse_known_args()
    if unknown := sorted(set(options.names) - set(present)):
        parser.error(f"there is no benchmark '{unknown[0]}'")
    for name in [] if options.collect else options.names or present:
        script, *arguments = BENCHMARKS[name]
        command = [sys.executable, str(HERE / script), *arguments, *passed]
        said = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True).stdout
        write_text(result(name), said.rstrip() + "\n")
        print(said, flush=True)
    sections = [
        file.read_text() + PICTURES.get(name, "")
        for name in BENCHMARKS
        for file in sorted(RESULTS.glob(f"speed_{name}*.md"))
    ]
    write_text(DOCUMENT, "\n".join([INTRODUCTION, *sections]))


def result(name: str) -> Path:
    return RESULTS / f"speed_{name}.md"


if __name__ == "__main__":
    main()
