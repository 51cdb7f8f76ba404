"""Slurm executor: submit a job array, each task of which runs its share with the local executor.

The jobs continue if the submitting process ends. The id of the array is written to the work folder, so that
another caller waits for it before it submits the remaining items.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ccl_cli.config.recipe import Executor
from ccl_cli.errors import SystemSetupError
from ccl_cli.executors.work import Events, Work, not_shared
from ccl_cli.utils.files import lock_file, write_text
from ccl_cli.utils.signals import handled_by, stop_here, stopping_here

UNREADABLE = 66  # exit code of a task that cannot read the work list
_WARNING_SECONDS = 120  # time to save the state before the time limit
# Slurm's reasons for a job that it will never start: the request cannot be satisfied, or the job is held.
_NEVER_STARTS = re.compile(
    r"Bad|Invalid|.*NotAllowed|.*PerJob|Partition(Time|Node)Limit|JobHeld|launch failed"
)
# A step does not inherit the cores of its job. A task that Slurm stops is requeued and continues with its
# remaining items.
_SCRIPT = """\
#!/bin/bash
[ -r {work} ] || exit {unreadable}
cores=${{SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}}
srun $cores {command} {work} "$SLURM_ARRAY_TASK_ID" || code=$?
if [ "${{code:-0}}" = 130 ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
else
  exit "${{code:-0}}"
fi
"""
# Variables that `srun` inherits from a surrounding job; an array must not inherit those of the submitter's
# job.
_JOB_VARIABLES = re.compile(r"SLURM_(CPUS|GPUS|JOB|MEM|NNODES|NODE|NPROCS|NTASKS|STEP|TASKS|TRES|THREADS)")
_log = logging.getLogger("ccl")


def run(work: Work, settings: Executor, events: Events) -> dict[str, str]:
    """Run all items in a job array, and wait until it has ended; as :func:`ccl_cli.executors.local.run`.

    Returns:
        State of the task by item, for items that are neither done nor have written a reason.

    Raises:
        Interrupted: a signal stopped the waiting; the jobs continue.
        SystemSetupError: Slurm is not installed or refuses the jobs, or the nodes cannot read the folder.
    """
    for name in ("sbatch", "squeue"):
        if shutil.which(name) is None:
            raise SystemSetupError(
                f"The command `{name}` was not found.",
                "Run this on a login node of the cluster, or use --executor local.",
            )
    hint = "Run the same command to wait for them; `squeue --me` lists them, and `scancel` cancels them."
    with stopping_here("; the jobs continue.", hint):
        return _Cluster(work, settings, events).run()


class _Cluster:
    """Job arrays of one work list; their folder contains the list, the id of the array, and its output."""

    def __init__(self, work: Work, settings: Executor, events: Events) -> None:
        self.work, self.settings, self.events = work, settings, events
        self.folder = work.folder.absolute() / ".slurm"
        self._waiting = list(work.items)  # items without an event so far

    def run(self) -> dict[str, str]:
        lock = self.folder.with_name(".slurm.lock")
        while names := self.work.unsettled():
            with lock_file(lock, "Another process submits the same work.", "Waiting for it.", wait=True):
                running = self._running()
                array = running or self._submit(names)
            if running:
                _log.info("Waiting for array %s, which is already running.", array)
            self._follow(array)
            if not running:
                return self._lost(array, names)
        return {}

    def _running(self) -> str | None:
        """Return the last submitted array if it is still in the queue."""
        try:
            array = (self.folder / "array").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return array if self._states(array) else None

    def _states(self, array: str) -> Counter[str]:
        """Count the tasks by state; empty if the array has ended. Retries until Slurm answers.

        Raises:
            SystemSetupError: no remaining task can ever start.
        """
        while (result := _command("squeue", "-h", "-r", "-j", array, "-o", "%T %r")).returncode:
            if "invalid job id" in result.stderr.lower():  # the array has ended
                return Counter()
            # A missing answer does not mean that the job has ended.
            _log.warning("squeue does not answer, retrying: %s", _error_line(result))
            time.sleep(self.settings.poll)
        tasks = [line.partition(" ") for line in result.stdout.splitlines()]
        if tasks and all(state == "PENDING" and _NEVER_STARTS.match(why) for state, _, why in tasks):
            raise SystemSetupError(
                f"Slurm cannot start array {array}: {tasks[0][2]}.",
                f"Run `scancel {array}`, change CCL_EXECUTOR_..., and run the same command again.",
            )
        return Counter(state for state, _, _ in tasks)

    def _submit(self, names: Sequence[str]) -> str:
        """Submit the remaining items; return the id of the array.

        Raises:
            SystemSetupError: Slurm refuses the jobs; nothing was submitted.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        tasks = min(self.settings.tasks, len(names))
        file = self.folder / "work.json"
        values = {"tasks": tasks, "settings": self.settings.model_dump(mode="json")}
        write_text(file, json.dumps(values | {"work": self.work.only(names).to_json()}) + "\n")
        command = shlex.join([sys.executable, "-P", "-m", "ccl_cli.executors.slurm_task"])
        script = _SCRIPT.format(work=shlex.quote(str(file)), command=command, unreadable=UNREADABLE)
        write_text(self.folder / "job.sh", script)
        result = self._sbatch(tasks)
        if result.returncode:
            shutil.rmtree(self.folder)
            raise SystemSetupError(
                f"Slurm refuses the jobs: {_error_line(result)}",
                "Set the options that your cluster requires, such as CCL_EXECUTOR_PARTITION.",
            )
        array = _array_id(result)
        summary = f"array {array} of {tasks} tasks for {len(names)} items; their output is in '{self.folder}'"
        _log.info("%s: %s.", self.work.title, summary)
        return array

    def _sbatch(self, tasks: int) -> subprocess.CompletedProcess[str]:
        """Submit and record the array id, with signals blocked, so that no array is submitted twice."""
        signals: list[int] = []
        with handled_by(lambda number, frame: signals.append(number)):
            result = _command("sbatch", *self._options(tasks), str(self.folder / "job.sh"))
            if not result.returncode:
                write_text(self.folder / "array", _array_id(result) + "\n")
        if signals:
            stop_here(signals[0], None)
        return result

    def _options(self, tasks: int) -> list[str]:
        settings = self.settings
        given = {
            "partition": settings.partition,
            "account": settings.account,
            "gpus-per-node": settings.gpus,
            "cpus-per-task": settings.cpus,
            "mem": settings.memory,
            "time": settings.time,
        }
        own = [f"--{name}={value}" for name, value in given.items() if value]
        further = [
            f"--{name}={value}" if value != "" else f"--{name}" for name, value in settings.options.items()
        ]
        limit = f"%{settings.parallel}" if settings.parallel else ""
        return [
            "--parsable",
            f"--job-name=ccl-{self.work.title}",
            f"--array=0-{tasks - 1}{limit}",
            "--requeue",
            "--open-mode=append",
            "--export=ALL",
            f"--signal=USR1@{_WARNING_SECONDS}",
            f"--chdir={Path.cwd()}",
            f"--output={self.folder}/%a.log",
            *own,
            *further,
        ]

    def _follow(self, array: str) -> None:
        """Wait until an array has ended, and report its items."""
        while states := self._states(array):
            _log.debug("array %s: %s", array, dict(states))
            self._report_ended()
            time.sleep(self.settings.poll)
        if self.work.unsettled():
            time.sleep(self.settings.poll)  # files may appear with a delay on a shared disk
        self._report_ended()

    def _report_ended(self) -> None:
        for name in [name for name in self._waiting if self.work.is_settled(name)]:
            self._waiting.remove(name)
            self.events.ended(name)

    def _lost(self, array: str, names: Sequence[str]) -> dict[str, str]:
        """State of the task by item, for items without a result.

        Raises:
            SystemSetupError: the nodes cannot read the folder.
        """
        tasks = min(self.settings.tasks, len(names))
        left = set(self.work.unsettled())
        endings = _endings(array) if left else {}
        if any(ending.endswith(f" {UNREADABLE}:0") for ending in endings.values()):
            shutil.rmtree(self.folder, ignore_errors=True)
            raise not_shared(self.folder.parent)
        reasons: dict[str, str] = {}
        for task in range(tasks):
            of_task = [name for name in names[task::tasks] if name in left]
            if of_task:
                how = f"task {task} of array {array} ended: {endings.get(str(task), 'unknown reason')}"
                _log.warning("%s: %d items are unfinished.", how, len(of_task))
                reasons |= dict.fromkeys(of_task, how)
        return reasons


def _array_id(result: subprocess.CompletedProcess[str]) -> str:
    """Return the array id in the output of `sbatch --parsable`, where federations append the cluster."""
    return result.stdout.strip().partition(";")[0]


def _endings(array: str) -> dict[str, str]:
    """Return state and exit code of each task, such as "OUT_OF_MEMORY 0:125"; empty without accounting."""
    if shutil.which("sacct") is None:
        return {}
    result = _command("sacct", "-n", "-P", "-X", "-j", array, "-o", "JobID,State,ExitCode")
    lines = (line.split("|") for line in result.stdout.splitlines())
    return {job.partition("_")[2]: " ".join(ending) for job, *ending in lines}


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a Slurm command, shielded from Ctrl-C and without the variables of a surrounding job."""
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not _JOB_VARIABLES.match(name)},
        start_new_session=True,
    )


def _error_line(result: subprocess.CompletedProcess[str]) -> str:
    """Format the error output of a Slurm command as one line."""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    lines = [re.sub(r"^\w+: (error: )?", "", line) for line in lines]
    return "; ".join(lines) or "no error message"
