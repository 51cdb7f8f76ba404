"""Do items on a Slurm cluster: an array of jobs, each of which does its share as one machine would.

The jobs outlive whoever submitted them. The number of the array is written beside the work, so that a second
caller waits for it before it submits what is left.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from ccl_cli.config.recipe import Executor
from ccl_cli.errors import SystemSetupError
from ccl_cli.executors.work import Events, Work
from ccl_cli.utils.files import write_text
from ccl_cli.utils.signals import handled_by, stop_here, stopping_here

UNSEEN = 66  # exit code of a task that does not see the list of work
_WARNING_SECONDS = 120  # in which a run saves before the limit of time
_ENDINGS = {
    "TIMEOUT": "reached its limit of time",
    "OUT_OF_MEMORY": "ran out of memory",
    "NODE_FAIL": "lost its node",
    "CANCELLED": "was cancelled",
    "PREEMPTED": "was preempted",
}
# A step does not take its cores from the job's options. A task that Slurm stops is queued again, and
# continues with the rest of its share.
_SCRIPT = """\
#!/bin/bash
[ -r {work} ] || exit {unseen}
cores=${{SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}}
srun $cores {command} {work} "$SLURM_ARRAY_TASK_ID" || code=$?
if [ "${{code:-0}}" = 130 ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
else
  exit "${{code:-0}}"
fi
"""
# What `srun` takes from the job around it: an array must not inherit the numbers of the submitter's own job.
_OF_A_JOB = re.compile(r"SLURM_(CPUS|GPUS|JOB|MEM|NNODES|NODE|NPROCS|NTASKS|STEP|TASKS|TRES|THREADS)")
_log = logging.getLogger("ccl")


def run(work: Work, settings: Executor, events: Events) -> dict[str, str]:
    """Do every item by an array of jobs, and wait until it has ended.

    Args:
        work: What is to do.
        settings: Of the jobs.
        events: Hears of every item that has ended.

    Returns:
        What became of the tasks whose items have neither been done nor left a reason, by item.

    Raises:
        Interrupted: a signal stopped the waiting; the jobs go on.
        SystemSetupError: there is no Slurm here, it refuses the jobs, or the nodes do not see the folder.
    """
    for name in ("sbatch", "squeue"):
        if shutil.which(name) is None:
            raise SystemSetupError(
                f"There is no `{name}` here.",
                "Give the command where jobs are submitted, or use --executor local.",
            )
    hint = "The same command waits for them; `squeue --me` lists them, and `scancel` ends them."
    with stopping_here("; the jobs go on.", hint):
        return _Cluster(work, settings, events).run()


class _Cluster:
    """The arrays of one work.

    Attributes:
        folder: The list of work, the number of the array, and what its tasks print.
    """

    def __init__(self, work: Work, settings: Executor, events: Events) -> None:
        self.work, self.settings, self.events = work, settings, events
        self.folder = work.folder.absolute() / ".slurm"
        self._waiting = list(work.items)  # for the caller to hear of
        self._complained = False

    def run(self) -> dict[str, str]:
        submitted = False
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        while not submitted and (names := self.work.unsettled()):
            with FileLock(self.folder.with_name(".slurm.lock")):
                running = self._running()
                array, submitted = running or self._submit(names), running is None
            if not submitted:
                _log.info("Waiting for array %s, which runs already.", array)
            self._follow(array)
        self._hear()
        return self._lost(array, names) if submitted else {}

    def _running(self) -> str | None:
        """The array that was submitted last, while Slurm has it in its queue."""
        try:
            array = (self.folder / "array").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return array if self._states(array) else None

    def _states(self, array: str) -> Counter[str]:
        """How many tasks are in which state; none: the array has ended. Asks until Slurm answers."""
        while True:
            asked = _command("squeue", "-h", "-r", "-j", array, "-o", "%T")
            if not asked.returncode:
                return Counter(asked.stdout.split())
            if "invalid job id" in asked.stderr.lower():  # it has forgotten the array
                return Counter()
            if not self._complained:  # an answer that does not come is not "no job"
                _log.warning("squeue does not answer, asking again: %s", _words(asked.stderr))
            self._complained = True
            time.sleep(self.settings.poll)

    def _submit(self, names: Sequence[str]) -> str:
        """Submit what is left; the number of the array.

        Raises:
            SystemSetupError: Slurm refuses it; nothing is left of it.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        tasks = min(self.settings.tasks, len(names))
        file = self.folder / "work.json"
        values = {"tasks": tasks, "settings": self.settings.model_dump(mode="json")}
        write_text(file, json.dumps(values | {"work": self.work.only(names).to_json()}) + "\n")
        command = [sys.executable, "-P", "-m", "ccl_cli.executors.slurm_task"]
        script = _SCRIPT.format(work=shlex.quote(str(file)), command=shlex.join(command), unseen=UNSEEN)
        write_text(self.folder / "job.sh", script)
        asked = self._sbatch(tasks)
        if asked.returncode:
            shutil.rmtree(self.folder)
            raise SystemSetupError(
                f"Slurm refuses the jobs: {_words(asked.stderr)}",
                "Set what your cluster asks for, such as CCL_EXECUTOR_PARTITION or CCL_EXECUTOR_ACCOUNT.",
            )
        array = _number(asked)
        said = f"array {array} of {tasks} tasks for {len(names)} items; they print to '{self.folder}'"
        _log.info("%s: %s.", self.work.title, said)
        return array

    def _sbatch(self, tasks: int) -> subprocess.CompletedProcess[str]:
        """Submit, and write down the number; a signal waits, else the array would be submitted again."""
        signals: list[int] = []
        with handled_by(lambda number, frame: signals.append(number)):
            asked = _command("sbatch", *self._options(tasks), str(self.folder / "job.sh"))
            if not asked.returncode:
                write_text(self.folder / "array", _number(asked) + "\n")
        if signals:
            stop_here(signals[0], None)
        return asked

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
        further = [f"--{name}" + f"={value}" * (value != "") for name, value in settings.options.items()]
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
        """Wait until an array has ended, and tell of its items."""
        before: Counter[str] = Counter()
        while states := self._states(array):
            if states != before:
                words = (f"{count} {state.lower()}" for state, count in states.items())
                _log.debug("array %s: %s", array, ", ".join(words))
            before = states
            self._hear()
            time.sleep(self.settings.poll)
        if self.work.unsettled():
            time.sleep(self.settings.poll)  # a shared disk may tell of a file a moment after it was made

    def _hear(self) -> None:
        for name in [name for name in self._waiting if self.work.is_settled(name)]:
            self._waiting.remove(name)
            self.events.ended(name)

    def _lost(self, array: str, names: Sequence[str]) -> dict[str, str]:
        """What became of the tasks of items of which nothing has come.

        Raises:
            SystemSetupError: the nodes do not see the folder.
        """
        tasks = min(self.settings.tasks, len(names))
        left = set(self.work.unsettled())
        endings = _endings(array) if left else {}
        if any(code == f"{UNSEEN}:0" for _, code in endings.values()):
            shutil.rmtree(self.folder, ignore_errors=True)
            raise SystemSetupError(
                f"The cluster's nodes do not see '{self.folder.parent}'.",
                "Name a folder on a disk that all of them see: CCL_RUNS for runs, CCL_HOME for caches.",
            )
        reasons: dict[str, str] = {}
        for task in range(tasks):
            of_task = [name for name in names[task::tasks] if name in left]
            if of_task:
                how = f"task {task} of array {array} {_ending(*endings.get(str(task), ('', '')))}"
                _log.warning("%s: %d items are left.", how, len(of_task))
                reasons |= dict.fromkeys(of_task, how)
        return reasons


def _number(asked: subprocess.CompletedProcess[str]) -> str:
    """What `sbatch --parsable` prints; a federation adds the cluster's name."""
    return asked.stdout.strip().partition(";")[0]


def _endings(array: str) -> dict[str, tuple[str, str]]:
    """State and exit code of each task; none where there is no accounting."""
    if shutil.which("sacct") is None:
        return {}
    asked = _command("sacct", "-n", "-P", "-X", "-j", array, "-o", "JobID,State,ExitCode")
    lines = (line.split("|") for line in asked.stdout.splitlines())
    return {cells[0].partition("_")[2]: (cells[1], cells[2]) for cells in lines if len(cells) == 3}


def _ending(state: str, code: str) -> str:
    """What became of a task, as the end of a sentence."""
    word = state.partition(" ")[0]  # "CANCELLED by 1000"
    number, _, by = code.partition(":")
    if word in _ENDINGS:
        return _ENDINGS[word]
    if by not in ("", "0"):
        known = int(by) in set(signal.Signals)
        return f"was ended by {signal.Signals(int(by)).name if known else f'signal {by}'}"
    return f"ended with exit code {number}" if word else "ended, and Slurm does not say how"


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm, out of reach of the terminal's Ctrl-C, as if outside of any job."""
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not _OF_A_JOB.match(name)},
        start_new_session=True,
    )


def _words(text: str) -> str:
    """What a command of Slurm complains of, as one line."""
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in text.splitlines() if line.strip()]
    return "; ".join(lines) or "it does not say why"
