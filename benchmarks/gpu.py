"""Training on one GPU: clips per second, memory, and the share of what the GPU can do in bf16.

    python benchmarks/gpu.py                        # both students, batch 16, 64, 256, eager and compiled
    python benchmarks/gpu.py --student r2plus1d_10 --batch 64
    python benchmarks/gpu.py --frames 4 --size 32 --batch 2 --steps 2   # a try on a CPU, which says little

Steps are those of the product's trainer in bf16 and channels_last_3d, copying the batch to the GPU included:
cross-entropy alone, and CCL with both teachers' embeddings cached. The ceiling is a product of two bf16
matrices, 8192 x 8192, measured in the same run. What a clip costs is counted by torch, forward and backward.
Each row is a process of its own.
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch
from measuring import arguments, figure, heading, in_process, median, table
from step import ceiling, flops_of_a_clip, our_step, synchronized

WARM_UP = 3


def once(
    method: str, student: str, batch: int, compiled: bool, options: argparse.Namespace
) -> dict[str, Any]:
    """One row: the median step and the memory it takes."""
    logging.getLogger("ccl").setLevel(logging.ERROR)
    options.batch = batch
    settings = {"precision": "bf16", "compile": compiled, "student": student}
    step = our_step(options, method=method, cached=True, **settings)
    for _ in range(WARM_UP):
        step()
    seconds = []
    for _ in range(options.steps):
        begin = synchronized()
        step()
        seconds.append(synchronized() - begin)
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"seconds": median(seconds), "bytes": memory}


def row(student: str, batch: int, compiled: bool, options: argparse.Namespace, most: float) -> list[str]:
    """Cross-entropy and CCL in turns; what did not fit says so."""
    names = [student, str(batch), "compiled" if compiled else "eager"]
    try:
        alone, ccl = (
            in_process(once, method, student, batch, compiled, options) for method in ("baseline", "ccl")
        )
    except Exception as error:
        return [*names, f"failed ({type(error).__name__})", "", "", "", ""]
    speed = batch / ccl["seconds"]
    share = speed * flops_of_a_clip(student, options.frames, options.size) / most
    ratio, memory = f"{ccl['seconds'] / alone['seconds']:.3f}", figure(ccl["bytes"] / 1e9)
    return [*names, figure(batch / alone["seconds"]), figure(speed), ratio, f"{100 * share:.0f} %", memory]


def main() -> None:
    students = ["r2plus1d_18", "r2plus1d_10"]
    numbers = {"frames": 16, "size": 112, "steps": 20}
    options = arguments(__doc__, student=students, batch=[16, 64, 256], **numbers, no_compile=False)
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


if __name__ == "__main__":
    main()
