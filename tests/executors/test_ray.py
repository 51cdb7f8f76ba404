"""Items as tasks of a real Ray, which starts on this machine and reaches no other: in a network of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ccl_cli.config.recipe import Executor
from ccl_cli.errors import SystemSetupError
from ccl_cli.executors import ray
from tests.executors.test_slurm import ROOT, counted, work
from tests.executors.things import Events

ALONE = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
DRIVER = """
import sys
from pathlib import Path
from tests.executors.test_slurm import start
print(start(Path(sys.argv[1]), sys.argv[2].split(","), "ray", seconds=20))
"""


@pytest.fixture
def alone():
    """The words before a command that runs it without a network."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    try:
        subprocess.run([*ALONE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not allow a network of its own, and Ray would listen on a real one")
    return ALONE


@pytest.mark.slow
def test_a_failure_costs_its_item_only_and_is_named(alone, tmp_path):
    folder, acts = tmp_path / "work", ["0", "die", "hang", "raise", "tell", "0"]
    environment = {
        "CCL_TEST": "It is set.",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    command = [*alone, sys.executable, "-c", DRIVER, str(folder), ",".join(acts)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == {
        "1-die": "The process was ended by SIGKILL; memory may have run out.",
        "2-hang": "It took longer than 20 s.",
        "3-raise": "It is no use.",
        "4-tell": "It is set.",
    }
    assert counted(folder) == {"0-0": 1, "5-0": 1}
    assert set(counted(folder, "begun").values()) == {1}


def test_without_ray_the_next_step_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemSetupError, match="requires the package ray"):
        ray.run(work(tmp_path, ["0"]), Executor(), Events())


def test_a_cluster_that_does_not_answer_or_has_too_few_cores_is_one_sentence(tmp_path, monkeypatch):
    cluster = SimpleNamespace(nodes=lambda: [{"Resources": {"CPU": 2.0}}, {"Resources": {}}])
    with pytest.raises(SystemSetupError, match="No node of the Ray cluster has 3 cores"):
        ray._submit(cluster, work(tmp_path, ["0"]), Executor(cpus=3))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(SystemSetupError, match=r"Ray cannot be reached at '127.0.0.1:1': .*refused"):
        ray._cluster(None).__enter__()


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path):
    elsewhere = str(tmp_path / "elsewhere")
    assert ray._run_item(work(tmp_path / "elsewhere", ["0"]).to_json(), {}, str(tmp_path)) == elsewhere
    assert ray._run_item(work(tmp_path, ["0"]).to_json(), {}, elsewhere) == elsewhere
