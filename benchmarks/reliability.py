"""Try to break ccl: the long part of tests/reliability, its counts written into docs/reliability.md.

    python benchmarks/reliability.py                # all topics; two to three hours on two cores
    python benchmarks/reliability.py kills numbers  # some; the others stay as they were
    python benchmarks/reliability.py --collect      # none: only write the document's tables again

What was counted is kept under benchmarks/results/reliability/, a file a topic, also where trials failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import machine, table_text

from ccl_cli.utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "reliability", ROOT / "docs" / "reliability.md"
TESTS = ROOT / "tests" / "reliability"


def main() -> None:
    topics = sorted(path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"Of {', '.join(topics)}; default: all.")
    parser.add_argument("--collect", action="store_true", help="Run nothing.")
    options = parser.parse_args()
    if unknown := sorted(set(options.topics) - set(topics)):
        parser.error(f"there is no topic '{unknown[0]}'")
    passed = [run(topic) for topic in ([] if options.collect else options.topics or topics)]
    write_text(DOCUMENT, with_tables(DOCUMENT.read_text()))
    sys.exit(0 if all(passed) else 1)


def run(topic: str) -> bool:
    """Run a topic's tests at full length and keep what they counted; whether all passed."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CCL_TRIALS": "full", "CCL_TALLY": folder}
        test = TESTS / f"test_{topic}.py"
        command = [sys.executable, "-m", "pytest", "-n", "2", "--durations", "5", str(test)]
        passed = not subprocess.run(command, env=environment, cwd=ROOT).returncode
        rows = [json.loads(line) for path in Path(folder).glob("*.jsonl") for line in path.open()]
    result = {
        "command": f"python benchmarks/reliability.py {topic}",
        "date": time.strftime("%d %B %Y").lstrip("0"),
        "machine": machine(),
        "minutes": round((time.perf_counter() - begin) / 60, 1),
        "passed": passed,
        "rows": sorted(summed(rows), key=lambda row: ("figure" in row, row["what"])),
    }
    RESULTS.mkdir(exist_ok=True)
    write_text(RESULTS / f"{topic}.json", json.dumps(result, indent=1) + "\n")
    return passed


def summed(rows: list[dict]) -> list[dict]:
    """Counts of one name, from several tests, as one; of figures the last."""
    found: dict[tuple[bool, str], dict] = {}
    for row in rows:
        before = found.get(("figure" in row, row["what"]), {})
        found["figure" in row, row["what"]] = row | {
            key: row[key] + before.get(key, 0) for key in ("tried", "survived") if key in row
        }
    return list(found.values())


def with_tables(document: str) -> str:
    """The document with the newest table between ``<!-- topic -->`` and ``<!-- end -->``."""
    for path in sorted(RESULTS.glob("*.json")):
        section = re.compile(rf"(<!-- {path.stem} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = rows_text(json.loads(path.read_text()))
        document, found = section.subn(lambda match, text=text: f"{match[1]}{text}{match[2]}", document)
        if not found:
            sys.exit(f"{DOCUMENT.name} has no place for '{path.stem}'.")
    return document


def rows_text(result: dict) -> str:
    """A topic's table with its command, and whether a test failed."""
    counted = [row for row in result["rows"] if "tried" in row]
    measured = [row for row in result["rows"] if "figure" in row]
    lines = [f"`{result['command']}`, {result['date']}, {result['machine']}; {result['minutes']} minutes."]
    lines += [] if result["passed"] else ["**Some tests failed.**"]
    if counted:
        rows = [(row["what"], f"{row['tried']:,}", f"{row['survived']:,}") for row in counted]
        lines += [table_text(("", "tried", "survived"), rows)]
    if measured:
        lines += [table_text(("", "measured"), [(row["what"], row["figure"]) for row in measured])]
    return "\n\n".join(lines) + "\n\n"


if __name__ == "__main__":
    main()
