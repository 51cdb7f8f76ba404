"""Work that is mapped over an imitation of Slurm, and over this machine in the same words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ccl_cli.config.recipe import Executor
from ccl_cli.errors import SystemSetupError, UsageError
from ccl_cli.executors import map_items, slurm
from ccl_cli.executors.part import Part, parse_part
from ccl_cli.executors.work import Work
from tests.executors.things import Events

ROOT = Path(__file__).parents[2]
DRIVER = """
import sys
from pathlib import Path
from tests.executors.test_slurm import start
print(start(Path(sys.argv[1]), sys.argv[2].split(",")))
"""


@pytest.fixture
def cluster(slurm, monkeypatch):
    """Tasks find the tests' functions, and know without importing torch that there is no GPU."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return slurm


def work(folder, acts):
    names = [f"{number}-{act}" for number, act in enumerate(acts)]
    items = {name: {"act": act, "folder": str(folder / name)} for name, act in zip(names, acts, strict=True)}
    return Work("test", folder, "tests.executors.things:run", "tests.executors.things:done", items)


def start(folder, acts, executor="slurm", **settings):
    """Reasons by item."""
    settings = {"name": executor, "tasks": 2, "poll": 0.2, "jobs": 2, **settings}
    return map_items(work(folder, acts), Executor.model_validate(settings), Events())


def driver(folder, acts):
    """A caller in a process of its own."""
    command = [sys.executable, "-c", DRIVER, str(folder), ",".join(acts)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def counted(folder, what="ended"):
    """How often each item has begun or ended."""
    path = folder / f"{what}.txt"
    return Counter(path.read_text().split()) if path.exists() else Counter()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def arrays(cluster):
    return [path.name for path in (cluster / "jobs").iterdir()]


@pytest.mark.parametrize("executor", ["local", pytest.param("slurm", marks=pytest.mark.slow)])
def test_a_failure_costs_its_item_only_and_is_named(cluster, tmp_path, executor):
    folder = tmp_path / "work"
    acts = ["0", "die", "0", "hang", "raise", "0", "full"]
    reasons = start(folder, acts, executor, seconds=2)
    assert reasons == {
        "1-die": "The process was ended by SIGKILL; memory may have run out.",
        "3-hang": "It took longer than 2 s.",
        "4-raise": "It is no use.",
        "6-full": "OSError: [Errno 28] No space left on device",
    }
    assert counted(folder) == {"0-0": 1, "2-0": 1, "5-0": 1}
    assert set(counted(folder, "begun").values()) == {1}  # a failed item is for the next call
    assert start(folder, acts, executor, seconds=2).keys() == reasons.keys()
    failed = dict.fromkeys(reasons, 2)
    assert counted(folder, "begun") == {"0-0": 1, "2-0": 1, "5-0": 1, **failed}


@pytest.mark.slow
def test_a_second_caller_waits_for_the_array_of_one_that_was_killed(cluster, tmp_path, monkeypatch):
    folder, acts = tmp_path / "work", ["0.3"] * 10
    first = driver(folder, acts)
    wait_for(lambda: counted(folder).total() > 1)
    first.kill()
    first.communicate()
    monkeypatch.setenv("SLURM_STUB_FAIL", "squeue")  # no answer is not "no job"
    answers = []
    sleep = time.sleep

    def wait(seconds):
        answers.append(os.environ.pop("SLURM_STUB_FAIL", None))
        sleep(seconds)

    monkeypatch.setattr(slurm.time, "sleep", wait)
    assert start(folder, acts) == {}
    assert answers[0] == "squeue"
    assert set(counted(folder).values()) == {1}
    assert counted(folder).total() == 10
    assert len(arrays(cluster)) == 1


@pytest.mark.slow
def test_callers_at_once_share_one_array(cluster, tmp_path):
    folder, acts = tmp_path / "work", ["0.1", "die", "0.1", "0.1"]
    drivers = [driver(folder, acts) for _ in range(3)]
    outputs = {each.communicate(timeout=120)[0] for each in drivers}
    assert len(outputs) == 1
    assert "SIGKILL" in outputs.pop()
    assert counted(folder, "begun") == {"0-0.1": 1, "1-die": 1, "2-0.1": 1, "3-0.1": 1}
    assert len(arrays(cluster)) == 1


@pytest.mark.slow
def test_a_task_that_is_killed_is_named_and_the_next_call_does_what_it_left(cluster, tmp_path):
    folder, acts = tmp_path / "work", ["0.2", "600", "0.2", "0.2"]
    first = driver(folder, acts)
    wait_for(lambda: "1-600" in counted(folder, "begun"))
    (array,) = arrays(cluster)
    subprocess.run(["scancel", "--signal=KILL", f"{array}_1"], check=True)
    out, said = first.communicate(timeout=60)
    assert f"task 1 of array {array} ended: " in said
    assert f"'1-600': 'task 1 of array {array} ended: FAILED 0:9'" in out
    (folder / "1-600" / "result").touch()
    assert start(folder, acts) == {}
    assert {name: count for name, count in counted(folder).items() if count > 1} == {}


@pytest.mark.slow
def test_a_task_that_is_told_to_stop_is_queued_again_and_goes_on(cluster, tmp_path):
    folder, acts = tmp_path / "work", ["0.5"] * 8
    first = driver(folder, acts)
    wait_for(lambda: counted(folder).total() > 1)
    (array,) = arrays(cluster)
    subprocess.run(["scancel", "--signal=USR1", f"{array}_0"], check=True)
    out, said = first.communicate(timeout=60)
    assert out == "{}\n", said
    assert set(counted(folder).values()) == {1}
    assert counted(folder).total() == 8
    assert '"restarts": 1' in (cluster / "jobs" / array / "task0.json").read_text()


REFUSAL = """#!/bin/sh
echo 'sbatch: error: invalid partition specified: none' >&2
echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2
exit 1
"""
ELSEWHERE = """#!/bin/sh
for file; do :; done
rm "$(dirname "$file")/work.json"
exec {sbatch} "$@"
"""


@pytest.mark.parametrize(
    ("sbatch", "said"),
    [
        (None, "The command `sbatch` was not found."),
        (REFUSAL, "Slurm refuses the jobs: invalid partition specified: none; Batch job"),
        (ELSEWHERE, "The nodes of the cluster cannot read '"),
    ],
)
def test_what_keeps_slurm_from_working_is_one_sentence(cluster, shared, tmp_path, monkeypatch, sbatch, said):
    programs, folder = tmp_path / "programs", tmp_path / "work"
    programs.mkdir()
    if sbatch:
        (programs / "sbatch").write_text(sbatch.format(sbatch=shared / "slurm_stub" / "sbatch"))
        (programs / "sbatch").chmod(0o755)
    paths = f"{programs}:{os.environ['PATH']}" if sbatch else str(programs)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", paths)
        with pytest.raises(SystemSetupError) as caught:
            start(folder, ["0", "0"])
    assert caught.value.message.startswith(said)
    assert {path.name for path in folder.glob("*")} <= {".slurm.lock"}


def test_an_array_that_never_starts_is_not_waited_for(cluster, shared, tmp_path, monkeypatch):
    """Slurm accepts jobs that it can never start, and says so in its queue."""
    queue = tmp_path / "squeue"
    queue.write_text("#!/bin/sh\necho PENDING PartitionTimeLimit\necho PENDING PartitionTimeLimit\n")
    queue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    try:
        with pytest.raises(SystemSetupError, match=r"cannot start array .*: PartitionTimeLimit") as caught:
            start(tmp_path / "work", ["600", "600"])
    finally:
        queue.unlink()
    assert "scancel" in caught.value.hint


def test_settings_are_options_of_sbatch(tmp_path):
    sizes = {"tasks": 3, "parallel": 2, "gpus": 4, "cpus": 8, "memory": "64G", "time": "08:00:00"}
    names = {"partition": "gpu", "account": "lab", "options": {"constraint": "a100", "exclusive": ""}}
    settings = Executor.model_validate(sizes | names)
    options = slurm._Cluster(work(tmp_path, ["0"]), settings, Events())._options(3)
    expected = (
        "--array=0-2%2 --partition=gpu --account=lab --gpus-per-node=4 --cpus-per-task=8 --mem=64G "
        "--time=08:00:00 --signal=USR1@120 --constraint=a100 --exclusive --requeue"
    )
    assert set(expected.split()) <= set(options)
    plain = slurm._Cluster(work(tmp_path, ["0"]), Executor(), Events())._options(1)
    assert not [option for option in plain if option.startswith(("--partition", "--gpus", "--time", "--mem"))]


def test_parts_are_the_whole():
    assert parse_part(None) == Part(1, 1)
    for text in ("0/4", "5/4", "4", "a/b", "1/0", "-1/2"):
        with pytest.raises(UsageError, match="not a valid part"):
            parse_part(text)
    parts = [parse_part(f"{number}/3").of(range(10)) for number in (1, 2, 3)]
    assert sorted(number for part in parts for number in part) == list(range(10))
