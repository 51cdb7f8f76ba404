"""Tasks of a Slurm step as processes of one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ccl_cli.config.load import to_yaml
from ccl_cli.errors import UsageError
from ccl_cli.training.train import train
from ccl_cli.utils.processes.slurm_step import join_step
from tests.executors.test_slurm import wait_for
from tests.training.runs import lines, recipe

TASK = {
    "SLURM_JOB_ID": "123456",
    "SLURM_NTASKS": "7",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_NODELIST": "gpu[008-009,011],login",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
}
SET = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "OMP_NUM_THREADS",
)
PATHS = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])


def task(monkeypatch, **changes):
    """Join as a task, but for what is changed; None takes a variable away."""
    monkeypatch.setattr(os, "environ", {})
    os.environ.update({name: value for name, value in {**TASK, **changes}.items() if value is not None})
    return join_step(), tuple(os.environ.get(name) for name in SET)


@pytest.mark.parametrize(
    ("changes", "place", "value"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 1, "1"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 1, "0"),  # the only one that this task sees
        ({"SLURM_STEP_NODELIST": None, "SLURM_JOB_NODELIST": "one,two"}, 4, "one"),
        ({"SLURM_STEP_NODELIST": "r[1-2]n[03-04]"}, 4, "r1n03"),
        ({"SLURM_STEP_ID": "2"}, 5, "25450"),  # another step of the job needs another port
        ({"SLURM_STEP_TASKS_PER_NODE": None}, 3, None),
        ({"SLURM_CPUS_PER_TASK": "12"}, 6, "12"),
        ({"MASTER_PORT": "1"}, 5, "1"),
    ],
)
def test_a_task_is_numbered_as_torch_reads_it(monkeypatch, changes, place, value):
    expected = ["5", "1", "7", "2", "gpu008", "23456", "1"]
    expected[place] = value
    assert task(monkeypatch, **changes) == (True, tuple(expected))


@pytest.mark.parametrize(
    "changes", [{"SLURM_STEP_NUM_TASKS": None}, {"SLURM_STEP_NUM_TASKS": "1"}, {"RANK": "0"}]
)
def test_a_script_a_shell_one_task_and_a_launched_process_are_left_alone(monkeypatch, changes):
    joined, (_, *others) = task(monkeypatch, **changes)
    assert not joined
    assert set(others) == {None}


def test_tasks_that_should_each_start_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(TASK))
    with pytest.raises(UsageError, match="7 tasks, and each would start 4 processes"):
        join_step(4)


def two_nodes(folder, command, *, wait=True):
    """Run a command as one task on each of two nodes; return the job's number."""
    script = f"#!/bin/bash\n#SBATCH --nodes=2 --ntasks-per-node=1 --output=out.txt\nsrun {command}\n"
    (folder / "job.sh").write_text(script)
    environment = {**os.environ, "PYTHONPATH": PATHS}
    environment = {name: value for name, value in environment.items() if name != "ACCELERATE_USE_CPU"}
    submit = ["sbatch", "--parsable", *(["--wait"] if wait else []), "job.sh"]
    done = subprocess.run(submit, cwd=folder, env=environment, timeout=300, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, (folder / "out.txt").read_text()
    return done.stdout.strip()


def has_steps(run, count):
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(lines(run)) >= count)


@pytest.mark.slow
def test_a_run_on_two_nodes_is_one_run_also_if_it_is_killed_and_requeued(slurm, clips_folder, tmp_path):
    changes = {"train": {"batch_size": 8, "epochs": 12, "checkpoint_every": 1}, "optim": {"lr": 1e-4}}
    experiment = recipe(clips_folder, **changes)
    (tmp_path / "r.yaml").write_text(to_yaml(experiment))
    train_it = f"{sys.executable} -m ccl_cli train --recipe r.yaml --output"
    two_nodes(tmp_path, f"{train_it} whole")
    assert json.loads((tmp_path / "whole" / "summary.json").read_text())["processes"] == 2
    assert (tmp_path / "out.txt").read_text().splitlines().count("whole") == 1
    one, two = lines(train(experiment))[:2], lines(tmp_path / "whole")[:2]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-3)
    job = two_nodes(tmp_path, f"{train_it} again --resume auto", wait=False)
    has_steps(tmp_path / "again", 3)
    subprocess.run(["scontrol", "requeue", job], check=True)
    has_steps(tmp_path / "again", 10)
    subprocess.run(["scancel", "--signal=KILL", job], check=True)
    wait_for(lambda: not subprocess.run(["squeue", "-h"], check=True, capture_output=True).stdout)
    assert not (tmp_path / "again" / "model.safetensors").exists()
    two_nodes(tmp_path, f"{train_it} again --resume auto")
    assert lines(tmp_path / "again") == lines(tmp_path / "whole")
    whole, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "again"))
    assert again == whole
