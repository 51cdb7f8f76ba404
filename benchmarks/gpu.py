"""Training on one GPU: clips per second, memory, and the share of what the GPU can do in bf16.

    python benchmarks/gpu.py                        # both students, batch 16, 64, 256, eager and compiled
    python benchmarks/gpu.py --student r2plus1d_10 --batch 64 --profile
    python benchmarks/gpu.py --frames 4 --size 32 --batch 2 --steps 2   # a try on a CPU, which says little

Steps are those of the product's trainer in bf16 and channels_last_3d, copying the batch to the GPU included:
cross-entropy alone, and CCL with both teachers' embeddings cached. The ceiling is a product of two bf16
matrices, 8192 x 8192, measured in the same run. What a clip costs is counted by torch, forward and backward.
Each row is a process of its own; --profile adds where the time of a CCL step goes.
"""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

import torch
from measuring import figure, heading, in_process, median, table
from step import ceiling, flops_of_a_clip, our_step, synchronized

WARM_UP = 3


def once(options: argparse.Namespace) -> dict[str, Any]:
    """One row: the median step and the memory it takes."""
    logging.getLogger("ccl").setLevel(logging.ERROR)
    step = our_step(
        options,
        method=options.method,
        cached=True,
        precision="bf16",
        compile=options.compile,
        student=options.student[0],
    )
    for _ in range(WARM_UP):
        step()
    seconds = []
    for _ in range(options.steps):
        begin = synchronized()
        step()
        seconds.append(synchronized() - begin)
    if options.profile:
        profile(step)
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"seconds": median(seconds), "bytes": memory}


def profile(step: Any, steps: int = 5) -> None:
    """Print the kernels that take most of the time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    gpu = torch.cuda.is_available()
    with profiler(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as kept:
        for _ in range(steps):
            step()
        synchronized()
    order = "self_cuda_time_total" if gpu else "self_cpu_time_total"
    print(
        "```\n" + kept.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=60) + "\n```\n"
    )


def row(student: str, batch: int, compiled: bool, options: argparse.Namespace, most: float) -> list[str]:
    """Cross-entropy and CCL in turns; what did not fit says so."""
    given = ["--student", student, "--batch", batch, "--frames", options.frames, "--size", options.size]
    given += ["--steps", options.steps, *(["--compile"] if compiled else [])]
    names = [student, str(batch), "compiled" if compiled else "eager"]
    try:
        alone, ccl = (in_process("--once", "--method", method, *given) for method in ("baseline", "ccl"))
    except Exception as error:
        return [*names, f"failed ({type(error).__name__})", "", "", "", ""]
    speed = batch / ccl["seconds"]
    share = speed * flops_of_a_clip(student, options.frames, options.size) / most
    ratio = ccl["seconds"] / alone["seconds"]
    return [
        *names,
        figure(batch / alone["seconds"]),
        figure(speed),
        f"{ratio:.3f}",
        f"{100 * share:.0f} %",
        figure(ccl["bytes"] / 1e9),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", nargs="+", default=["r2plus1d_18", "r2plus1d_10"])
    parser.add_argument("--batch", nargs="+", type=int, default=[16, 64, 256])
    for name, value in {"frames": 16, "size": 112, "steps": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--profile", action="store_true", help="Print where the time of a CCL step goes.")
    parser.add_argument("--no-compile", action="store_true", help="Leave torch.compile out.")
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--method", default="ccl", help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        options.batch = options.batch[0]
        print(json.dumps(once(options)))
        return
    heading("Training on one GPU", "torch", "accelerate")
    most = ceiling(torch.bfloat16)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, the CPU instead"
    print(f"{name}. Product of bf16 matrices: {most / 1e12:.3g} TFLOP/s.")
    for student in options.student:
        flops = flops_of_a_clip(student, options.frames, options.size)
        print(
            f"{student}: {flops / 1e9:.0f} GFLOP per clip of {options.frames}x{options.size}x{options.size}."
        )
    print()
    rows = [
        row(student, batch, compiled, options, most)
        for student in options.student
        for batch in options.batch
        for compiled in ([False] if options.no_compile else [False, True])
    ]
    columns = ["student", "batch", "mode", "clips/s, cross-entropy", "clips/s, CCL", "CCL over it"]
    table([*columns, "of the product", "memory, GB"], rows)
    if options.profile:
        options.student, options.batch, options.method = options.student[:1], options.batch[0], "ccl"
        once(options)


if __name__ == "__main__":
    main()
