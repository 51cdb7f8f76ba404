"""Processes that Slurm has started as the tasks of one step find each other as torch's launchers have it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ccl_cli.errors import UsageError


def join_step(count: int = 1) -> bool:
    """Set what torch reads, in one of several tasks of ``srun``; whether this process is one.

    Batch scripts and interactive shells know the number of tasks as well and are none: only a step of several
    tasks counts, and only where no other launcher has set ``RANK``. What is set already stays as it is.

    Args:
        count: Value of ``--num-processes``.

    Raises:
        UsageError: ``count`` is above 1 in one of several tasks.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks < 2 or "RANK" in os.environ:
        return False
    if count > 1:
        raise UsageError(
            f"Slurm has started {tasks} tasks, and each would start {count} processes.",
            "Start one task per GPU and leave --num-processes out.",
        )
    for name, value in _variables(os.environ).items():
        os.environ.setdefault(name, value)
    return True


def _variables(slurm: Mapping[str, str]) -> dict[str, str]:
    # Two jobs on one node need two ports, and so do two steps of one job.
    number = int(slurm["SLURM_JOB_ID"]) + 997 * int(slurm.get("SLURM_STEP_ID", 0))
    nodes = slurm.get("SLURM_STEP_NODELIST") or slurm["SLURM_JOB_NODELIST"]
    # Slurm may show each task its own GPU only, which then is the first one.
    own_gpu = slurm.get("CUDA_VISIBLE_DEVICES", "").count(",") == 0 and slurm.get("CUDA_VISIBLE_DEVICES")
    variables = {
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": "0" if own_gpu else slurm["SLURM_LOCALID"],
        "WORLD_SIZE": slurm["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": _first_node(nodes),
        "MASTER_PORT": str(20000 + number % 10000),
        "OMP_NUM_THREADS": slurm.get("SLURM_CPUS_PER_TASK", "1"),  # what Slurm gives a task
    }
    if per_node := _tasks_per_node(slurm.get("SLURM_STEP_TASKS_PER_NODE", "")):
        variables["LOCAL_WORLD_SIZE"] = str(per_node[int(slurm.get("SLURM_NODEID", 0))])
    return variables


def _first_node(nodes: str) -> str:
    """``gpu001`` of ``gpu[001-004,007],login``."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).partition(",")[0]


def _tasks_per_node(text: str) -> list[int]:
    """``4(x2),3`` stands for 4, 4, 3."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, nodes in parts for _ in range(int(nodes or 1))]
