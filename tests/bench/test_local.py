from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from ccl_cli.bench import local
from ccl_cli.bench.cell import Device
from ccl_cli.bench.local import local_devices, lock_cell, run_locally
from ccl_cli.errors import Interrupted


def python(folder, program, **environment):
    """A process of its own that runs a program and finds modules in a folder."""
    paths = {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | paths | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_gpu_takes_one_cell_and_further_ones_share(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [device.name for device in local_devices(None)] == ["gpu 0", "gpu 1"]
    assert [device.environment["CUDA_VISIBLE_DEVICES"] for device in local_devices(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [device.environment["CUDA_VISIBLE_DEVICES"] for device in local_devices(None)] == ["5", "7"]


def test_cells_share_a_cpu_s_threads(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [device.threads for device in local_devices(None)] == [None]
    assert [device.threads for device in local_devices(3)] == [2, 2, 2]
    assert local_devices(20)[0].threads == 1


class Cell:
    """What an executor needs of a cell that cannot even begin."""

    phase, record, label = "final", {"method": "x"}, "x"

    class recipe:
        class train:
            max_steps = 0

    def __init__(self, folder="cell"):
        self.folder = folder


class Events:
    """Records what an executor tells."""

    def __init__(self, settled=()):
        self.settled_cells = settled
        self.devices, self.exit_codes = [], {}

    def settled(self, cell):
        return cell.folder in self.settled_cells

    def began(self, cell, device):
        self.devices.append(device)

    def ended(self, cell, exit_code):
        self.exit_codes[cell.folder] = exit_code


def test_a_process_sees_its_device_only_and_leaves_a_reason(tmp_path):
    devices = [
        Device("cpu", {"CUDA_VISIBLE_DEVICES": "3", "CCL_RUNS": str(number)}, 1) for number in range(2)
    ]
    events = Events()
    run_locally(tmp_path, [Cell(name) for name in "abc"], devices, ["no.such.module", "json"], events)
    assert events.devices[:2] == devices
    assert len(events.devices) == 3
    assert events.exit_codes == {"a": 1, "b": 1, "c": 1}
    for name in "abc":
        error = json.loads((tmp_path / name / "error.json").read_text())
        assert error["message"].startswith("AttributeError")
        assert "Internal error" in (tmp_path / name / "log.txt").read_text()


@pytest.mark.slow
def test_preloading_never_fails(tmp_path):
    # In a process of its own: it ignores signals from then on.
    modules = ",0,no.such.module,ccl_cli.nothing"
    process = python(tmp_path, "import ccl_cli.bench.preload", CCL_PRELOAD=modules)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


class Stub:
    """In place of a cell's process: a program, and what happens while it starts."""

    def __init__(self, command, meanwhile=lambda: None):
        # Whoever started the tests in the background may have them ignore Ctrl-C.
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        self.process, self.start = subprocess.Popen(command, preexec_fn=heeding), meanwhile
        self.pid, self.sentinel = self.process.pid, os.pidfd_open(self.process.pid)

    def is_alive(self):
        return self.process.poll() is None

    def join(self):
        self.exitcode = self.process.wait()


def run_stub(monkeypatch, root, stub, cells=None, settled=()):
    """Exit codes by cell."""
    events = Events(settled)
    context = type("Context", (), {"Process": staticmethod(lambda target, args: stub)})
    monkeypatch.setattr(local.multiprocessing, "get_context", lambda name: context)
    run_locally(root, cells or [Cell()], [Device("cpu")], [], events)
    return events.exit_codes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_that_comes_while_a_cell_is_started_is_for_that_cell_too(monkeypatch, tmp_path, number):
    stub = Stub(["sleep", "10"], lambda: os.kill(os.getpid(), number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(Interrupted, match=f"Stopped by {number.name}"):
        run_stub(monkeypatch, tmp_path, stub)
    assert stub.exitcode == -number
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert not list((tmp_path / "cell").iterdir())  # no reason: it did not fail


def test_a_cell_that_somebody_else_stops_has_failed(monkeypatch, tmp_path):
    assert run_stub(monkeypatch, tmp_path, Stub(["sh", "-c", "exit 130"])) == {"cell": 130}
    assert "was stopped" in json.loads((tmp_path / "cell" / "error.json").read_text())["message"]


def test_a_cell_is_locked_while_it_runs(monkeypatch, tmp_path):
    locks = []
    stub = Stub(["true"], lambda: locks.append(lock_cell(tmp_path / "cell")))
    assert run_stub(monkeypatch, tmp_path, stub) == {"cell": 0}
    assert locks == [None]
    assert lock_cell(tmp_path / "cell") is not None


@pytest.mark.parametrize("settled", [(), ("theirs",)])
def test_a_cell_of_another_process_is_waited_for_and_run_if_it_was_given_up(monkeypatch, tmp_path, settled):
    """The other process ends while our own cell runs; one that was stopped leaves its cell to us."""
    lock = lock_cell(tmp_path / "theirs")
    started = []
    stub = Stub(["true"], lambda: started.append(lock.is_locked))
    monkeypatch.setattr(stub, "join", lambda: (Stub.join(stub), lock.release()))
    cells = [Cell("theirs"), Cell("ours")]
    assert run_stub(monkeypatch, tmp_path, stub, cells, settled) == {"ours": 0, "theirs": 0}
    assert started == [True] + [False] * (not settled)


STOPPED = """
import multiprocessing
import os
from pathlib import Path

from ccl_cli.bench.cell import Device
from ccl_cli.bench.local import run_locally
from tests.bench.test_local import Cell, Events

os.setpgrp()  # with its server, as a shell starts it
preload = multiprocessing.set_forkserver_preload
multiprocessing.set_forkserver_preload = lambda names: preload(["slowly_imported"])
run_locally(Path(), [Cell()], [Device("cpu")], [], Events())
"""


def test_a_ctrl_c_while_the_cells_server_starts_ends_without_a_traceback(tmp_path):
    """The terminal sends it to the server too, and the cell is born with it."""
    (tmp_path / "slowly_imported.py").write_text("import time\nopen('begun', 'w')\ntime.sleep(1)\n")
    process = python(tmp_path, STOPPED)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert out == ""
    assert said.splitlines()[-1].startswith("ccl_cli.errors.Interrupted: Stopped by SIGINT")
    assert "KeyboardInterrupt" not in said
    assert "EOFError" not in said
    assert [path.name for path in (tmp_path / "cell").iterdir()] == ["log.txt"]
    assert (tmp_path / "cell" / "log.txt").read_text() == ""


INTERRUPTED = """
from pathlib import Path

from ccl_cli.bench import cell


def interrupt(*_):
    raise KeyboardInterrupt


cell._finish = interrupt
cell.run_cell(None, Path(), cell.Device("cpu"))
"""


def test_an_interrupted_cell_says_so_by_its_code_alone(tmp_path):
    process = python(tmp_path, INTERRUPTED)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert (tmp_path / "log.txt").read_text() == ""
    assert not (tmp_path / "error.json").exists()
