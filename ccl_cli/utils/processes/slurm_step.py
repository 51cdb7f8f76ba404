"""Connect the tasks of a Slurm step, using the environment variables of torch's launchers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ccl_cli.errors import UsageError


def join_step(count: int = 1) -> bool:
    """Set torch's environment variables in a task of ``srun``; return whether this process is such a task.

    Batch scripts and interactive shells also have a number of tasks, but are not tasks. Only steps with
    several tasks count, and only if no other launcher has set ``RANK``. Existing variables are kept.

    Args:
        count: Value of ``--num-processes``.

    Raises:
        UsageError: ``count`` is above 1 within a step of several tasks.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks < 2 or "RANK" in os.environ:
        return False
    if count > 1:
        raise UsageError(
            f"Slurm has started {tasks} tasks, and each would start {count} processes.",
            "Start one task per GPU and omit --num-processes.",
        )
    for name, value in _variables(os.environ).items():
        os.environ.setdefault(name, value)
    return True


def _variables(slurm: Mapping[str, str]) -> dict[str, str]:
    # Jobs on the same node need different ports, and so do steps of the same job.
    number = int(slurm["SLURM_JOB_ID"]) + 997 * int(slurm.get("SLURM_STEP_ID", 0))
    nodes = slurm.get("SLURM_STEP_NODELIST") or slurm["SLURM_JOB_NODELIST"]
    # Slurm may restrict each task to its own GPU, which then has index 0.
    visible = slurm.get("CUDA_VISIBLE_DEVICES", "")
    own_gpu = bool(visible) and "," not in visible
    variables = {
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": "0" if own_gpu else slurm["SLURM_LOCALID"],
        "WORLD_SIZE": slurm["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": _first_node(nodes),
        "MASTER_PORT": str(20000 + number % 10000),
        "OMP_NUM_THREADS": slurm.get("SLURM_CPUS_PER_TASK", "1"),  # cores of the task
    }
    if per_node := _tasks_per_node(slurm.get("SLURM_STEP_TASKS_PER_NODE", "")):
        variables["LOCAL_WORLD_SIZE"] = str(per_node[int(slurm.get("SLURM_NODEID", 0))])
    return variables


def _first_node(nodes: str) -> str:
    """Return ``gpu001`` for ``gpu[001-004,007],login``."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).partition(",")[0]


def _tasks_per_node(text: str) -> list[int]:
    """Parse ``4(x2),3`` to 4, 4, 3."""
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, nodes in parts for _ in range(int(nodes or 1))]
