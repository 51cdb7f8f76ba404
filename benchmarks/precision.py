"""Does bf16 cost accuracy? The same runs in float32 and in bf16, seed by seed.

    python benchmarks/precision.py [--seeds 8] [--student r2plus1d_10] [--epochs 40] [--jobs 2]

Runs `ccl bench` twice on the drawn world of `ccl demo`, with the same teachers, seeds, weights and order of
clips; only `train.precision` differs. Differences are paired by seed, their intervals Student's t, 95 %.
Finished runs are kept in $CCL_RUNS and not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measuring import arguments, ccl, heading, table
from studies import Values, difference, spread

from ccl_cli.report.records.runs import runs
from ccl_cli.utils.paths import runs_dir

PRECISIONS = ("fp32", "bf16")
METRICS = {"top1": "top-1", "r1": "R@1", "map": "mAP"}


def bench(precision: str, options: argparse.Namespace) -> Path:
    """The folder of a benchmark's runs."""
    name = f"precision-{options.student}-{precision}"
    given = ["demo", "--method", "baseline", "--method", "ccl", "--setup", "AI", "--name", name]
    given += ["--seeds", options.seeds, "--epochs", options.epochs, "--jobs", options.jobs]
    ccl("bench", *given, "--precision", precision, "--set", f"student={options.student}")
    return runs_dir() / name


def figures(folder: Path) -> dict[tuple[str, str], Values]:
    """By method and metric, in percent."""
    groups = runs(folder).groupby(["method", "setup", "metric"], sort=False)
    return {
        (f"{method} {setup}".strip(), metric): dict(zip(same["seed"], same["value"], strict=True))
        for (method, setup, metric), same in groups
    }


def main() -> None:
    options = arguments(__doc__, seeds=8, student="r2plus1d_tiny", epochs=40, jobs=2)
    heading(f"Accuracy in bf16: {options.student}", "torch", "accelerate")
    for teacher, labels in {"audio:small": "sounds", "image:small": "objects"}.items():
        ccl("teachers", "fit", teacher, "--data", f"synthetic?labels={labels}")
    full, half = (figures(bench(precision, options)) for precision in PRECISIONS)
    print(
        f"{options.seeds} seeds, {options.epochs} epochs, 400 test clips; "
        "mean and deviation over seeds, in percent.\n"
    )
    rows = [
        [key[0], METRICS[key[1]], spread(full[key]), spread(half[key]), difference(half[key], full[key])]
        for key in full
        if key[1] in METRICS
    ]
    table(["method", "figure", "fp32", "bf16", "bf16 less fp32, 95 % interval"], rows)


if __name__ == "__main__":
    main()
