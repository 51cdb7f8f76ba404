"""Does bf16 cost accuracy? The same runs in float32 and in bf16, seed by seed.

    python benchmarks/precision.py [--seeds 8] [--student r2plus1d_10] [--epochs 40] [--jobs 2]

Runs `ccl bench` twice on the drawn world of `ccl demo`, with the same teachers, seeds, weights and order of
clips; only `train.precision` differs. Differences are paired by seed, their intervals Student's t, 95 %.
Finished runs are kept in $CCL_RUNS and not made again.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from measuring import heading, table

from ccl_cli.report.records.comparison import Comparison
from ccl_cli.report.records.runs import runs
from ccl_cli.utils.paths import runs_dir

PRECISIONS = ("fp32", "bf16")
METRICS = {"top1": "top-1", "r1": "R@1", "map": "mAP"}

Values = dict[int, float]  # by seed


def bench(precision: str, options: argparse.Namespace) -> Path:
    """The folder of a benchmark's runs."""
    name = f"precision-{options.student}-{precision}"
    arguments = ["demo", "--method", "baseline", "--method", "ccl", "--setup", "AI", "--name", name]
    arguments += ["--seeds", options.seeds, "--epochs", options.epochs, "--jobs", options.jobs]
    arguments += ["--precision", precision, "--set", f"student={options.student}", "--quiet"]
    ccl("bench", *arguments)
    return runs_dir() / name


def ccl(*arguments: object) -> None:
    command = [sys.executable, "-m", "ccl_cli", *map(str, arguments)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def figures(folder: Path) -> dict[tuple[str, str], Values]:
    """By method and metric, in percent."""
    groups = runs(folder).groupby(["method", "setup", "metric"], sort=False)
    return {
        (f"{method} {setup}".strip(), metric): dict(zip(same["seed"], same["value"], strict=True))
        for (method, setup, metric), same in groups
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--student", default="r2plus1d_tiny")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    heading(f"Accuracy in bf16: {options.student}", "torch", "accelerate")
    for teacher, labels in {"audio:small": "sounds", "image:small": "objects"}.items():
        ccl("teachers", "fit", teacher, "--data", f"synthetic?labels={labels}", "--quiet")
    full, half = (figures(bench(precision, options)) for precision in PRECISIONS)
    rows = []
    for method, metric in full:
        if metric not in METRICS:
            continue
        ours, theirs = half[method, metric], full[method, metric]
        pair = Comparison("", "", metric, "bf16", "fp32", {seed: ours[seed] - theirs[seed] for seed in ours})
        low, high = pair.interval or (float("nan"), float("nan"))
        rows.append(
            [
                method,
                METRICS[metric],
                spread(theirs),
                spread(ours),
                f"{pair.mean:+.1f}",
                f"{low:+.1f} to {high:+.1f}",
            ]
        )
    print(
        f"{options.seeds} seeds, {options.epochs} epochs, 400 test clips; "
        "mean and deviation over seeds, in percent.\n"
    )
    table(["method", "figure", "fp32", "bf16", "bf16 less fp32", "95 % interval"], rows)


def spread(values: Values) -> str:
    return f"{statistics.fmean(values.values()):.1f} +- {statistics.stdev(values.values()):.1f}"


if __name__ == "__main__":
    main()
