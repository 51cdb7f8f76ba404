"""How long training waits for its clips: whole runs of `ccl train`, from video files and from shards.

    python benchmarks/wait.py [--frames 8] [--batch 8] [--steps 24] [--workers 1]

The network is the published code's student at 112 pixels, in bf16, with both teachers live; the clips are
those that ccl writes itself. What is printed is the share of its time that the trainer spent waiting for its
loader, step by step, as `ccl train` logs it; the first step, in which workers start, is given beside.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from measuring import arguments, ccl, figure, heading, median, table

TEACHERS = ["audio:cnn14?weights=random", "image:resnet34?weights=random&input=student_clip&size=112"]


def main() -> None:
    options = arguments(__doc__, frames=8, batch=8, steps=24, workers=1)
    heading("Waiting for clips", "torch", "accelerate")
    print(
        f"Batch {options.batch} of {options.frames}x112x112, r2plus1d_10, bf16, teachers live, "
        f"{options.workers} worker(s), {options.steps} steps.\n"
    )
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / "packed"
        ccl("data", "pack", "clips", "--output", packed)
        rows = [
            row(name, data, Path(scratch) / name, options)
            for name, data in {"files": "clips", "shards": f"shards:{packed}"}.items()
        ]
    table(
        ["clips from", "clips/s", "waited, percent", "at most", "first step, workers' start included"], rows
    )


def row(name: str, data: str, run: Path, options: argparse.Namespace) -> list[str]:
    clip = [f"clip.frames={options.frames}", "clip.size=112", "clip.short_side=128"]
    train = ["train.log_every=1", "train.channels_last=true", f"train.max_steps={options.steps}"]
    values = [part for each in [*clip, *train] for part in ("--set", each)]
    teachers = [part for each in TEACHERS for part in ("--teacher", each)]
    runtime = ["--precision", "bf16", "--batch-size", options.batch, "--workers", options.workers]
    given = ["--data", data, "--student", "r2plus1d_10", *teachers, *runtime, "--epochs", 1000]
    ccl("train", *given, *values, "--output", run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "data_wait" in line]
    later = [line["data_wait"] for line in steps[1:]]
    speed = median(line["clips_per_s"] for line in steps[1:])
    # Each step takes about as long as the next, so the mean of the shares is the share of the whole.
    shares = [sum(later) / len(later), max(later), steps[0]["data_wait"]]
    return [name, figure(speed), *(f"{100 * each:.2f}" for each in shares)]


if __name__ == "__main__":
    main()
