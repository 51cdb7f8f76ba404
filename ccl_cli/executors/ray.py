"""Run items as Ray tasks, on the cluster at RAY_ADDRESS or on this machine.

Ray only schedules the tasks. A task runs its item like the local executor: in a separate process, which may
crash or hang without affecting the task, with a lock, a time limit, and an error file in the item's folder.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ccl_cli.config.recipe import Executor
from ccl_cli.errors import SystemSetupError
from ccl_cli.executors import local
from ccl_cli.executors.slurm_task import TaskLog
from ccl_cli.executors.work import Events, Work, not_shared
from ccl_cli.utils.signals import handled_by

_SAVING_SECONDS = 120  # time for running items to save their state after a signal
_CONNECT_SECONDS = 10  # timeout for a cluster to answer; Ray itself waits 15 minutes
# No usage reports, the priority of the items of other executors, and no warnings of Ray's servers.
_DEFAULTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_BACKEND_LOG_LEVEL": "error"}


def run(work: Work, settings: Executor, events: Events) -> dict[str, str]:
    """Run every item as a task, and wait for all of them; as :func:`ccl_cli.executors.local.run`.

    Returns:
        Reasons by the name of each item whose task Ray has lost.

    Raises:
        SystemSetupError: Ray is not installed or cannot be reached, no node has enough cores, or a node
            cannot read the folder.
    """
    ray = _ray()
    work.folder.mkdir(parents=True, exist_ok=True)
    lost: dict[str, str] = {}
    signals: list[int] = []

    handling = partial(handled_by, lambda number, frame: signals.append(number))
    # Ray installs its own handler of SIGTERM, so the handlers are installed again.
    with handling(), _cluster(ray), handling():
        waiting = _submit(ray, work, settings)
        while waiting and not signals:
            for ended in ray.wait(list(waiting), timeout=1)[0]:
                name = waiting.pop(ended)
                try:
                    if missing := ray.get(ended):
                        raise not_shared(Path(missing))
                except ray.exceptions.RayError as error:
                    lost[name] = f"Ray lost the task: {type(error).__name__}."
                events.ended(name)
        if signals and waiting:
            for reference in waiting:
                ray.cancel(reference)  # acts like Ctrl-C in the task, which forwards it to its item
            ray.wait(list(waiting), num_returns=len(waiting), timeout=_SAVING_SECONDS)
            raise local.interrupted(signals[0])
    return lost


def _submit(ray: Any, work: Work, settings: Executor) -> dict[Any, str]:
    """Submit one task per item; return the item of each task.

    Raises:
        SystemSetupError: no node has enough cores, so Ray would wait forever.
    """
    cpus, available = settings.cpus or 1, max(node["Resources"].get("CPU", 0) for node in ray.nodes())
    if cpus > available:
        raise SystemSetupError(
            f"No node of the Ray cluster has {cpus} cores.",
            f"Set CCL_EXECUTOR_CPUS to at most {available:g}.",
        )
    gpus = min(1, int(ray.cluster_resources().get("GPU", 0)))
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_run_item)
    own = settings.model_copy(update={"jobs": 1}).model_dump(mode="json")
    return {task.remote(work.only([name]).to_json(), own, str(Path.cwd())): name for name in work.items}


def _run_item(work: str, settings: dict[str, Any], cwd: str) -> str:
    """Run the only item of the work; return a folder that this node cannot read, or ""."""
    whole = Work.read(work)
    for folder in (whole.folder, Path(cwd)):
        if not folder.is_dir():
            return str(folder)
    os.chdir(cwd)
    local.run(whole, Executor.model_validate(settings), TaskLog(whole))
    return ""


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    address = os.environ.get("RAY_ADDRESS")
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Tasks have the environment of their node, not that of the caller.
    environment = {name: value for name, value in os.environ.items() if name.startswith("CCL_")}
    options = {
        "runtime_env": {"env_vars": environment},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    try:
        _check_reachable(address or "")
        # Without an address, Ray would connect to a cluster that an earlier `ray start` left on this machine.
        ray.init(address or "local", **options, **({} if address else {"include_dashboard": False}))
    except Exception as error:  # Ray raises Exception itself if a process of it does not start in time
        where = f"be reached at '{address}'" if address else "be started"
        raise SystemSetupError(
            f"Ray cannot {where}: {' '.join(str(error).split())}",
            "Set RAY_ADDRESS to a running cluster, or unset it to start Ray on this machine.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():  # "auto" has none
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise SystemSetupError(
            "The executor `ray` requires the package ray.",
            "Run `pip install 'ccl-cli[ray]'`, or use --executor local.",
        ) from error
    return ray
