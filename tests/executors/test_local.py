from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from ccl_cli.config.recipe import Executor
from ccl_cli.errors import DataError, Interrupted, SystemSetupError
from ccl_cli.executors import local
from ccl_cli.executors.item import Device
from ccl_cli.executors.local import local_devices, lock_item
from ccl_cli.executors.work import write_error
from tests.executors.things import Events, work


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


@pytest.mark.parametrize(("listed", "ids"), [(None, "01"), ("5,7", "57")])
def test_every_gpu_takes_one_item_and_further_ones_share(monkeypatch, listed, ids):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert [device.name for device in local_devices(None)] == ["gpu 0", "gpu 1"]
    visible = [device.environment["CUDA_VISIBLE_DEVICES"] for device in local_devices(3)]
    assert visible == [ids[0], ids[1], ids[0]]


def test_items_share_a_cpu_s_threads(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(local, "cores", lambda: 8)
    threads = [[device.threads for device in local_devices(jobs)] for jobs in (None, 3, 20)]
    assert threads == [[None], [2] * 3, [1] * 20]


def test_a_process_sees_its_device_only_and_leaves_a_reason(tmp_path, monkeypatch):
    devices = [Device(f"gpu {number}", {"CUDA_VISIBLE_DEVICES": str(number)}) for number in range(2)]
    monkeypatch.setattr(local, "local_devices", lambda jobs: devices)
    events = Events()
    whole = work(tmp_path, *"abc", modules=("no.such.module", "json"))
    assert local.run(whole, Executor(), events) == {}
    assert events.places[:2] == ["gpu 0", "gpu 1"]
    assert len(events.places) == 3
    assert sorted(events.names) == ["a", "b", "c"]
    for name in "abc":
        error = json.loads((tmp_path / name / "error.json").read_text())
        assert (error["message"], error["exit_code"]) == ("ModuleNotFoundError: No module named 'no'", 1)
        assert "Internal error" in (tmp_path / name / "log.txt").read_text()


@pytest.mark.slow
def test_preloading_never_fails(tmp_path):
    modules = ",0,no.such.module,ccl_cli.nothing"
    process = python(tmp_path, "import ccl_cli.executors.preload", CCL_PRELOAD=modules)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


class Stub:
    """In place of an item's process: a program, and what happens while it starts."""

    def __init__(self, command, meanwhile=lambda: None):
        # Whoever started the tests in the background may have them ignore Ctrl-C.
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        self.process, self.start = subprocess.Popen(command, preexec_fn=heeding), meanwhile
        self.pid, self.sentinel = self.process.pid, os.pidfd_open(self.process.pid)

    def is_alive(self):
        return self.process.poll() is None

    def join(self):
        self.exitcode = self.process.wait()


def run_stub(monkeypatch, root, stub, *names):
    """Items that have ended."""
    events = Events()
    context = type("Context", (), {"Process": staticmethod(lambda target, args: stub)})
    monkeypatch.setattr(local.multiprocessing, "get_context", lambda name: context)
    local.run(work(root, *names), Executor(), events)
    return events.names


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_that_comes_while_an_item_is_started_is_for_that_item_too(monkeypatch, tmp_path, number):
    stub = Stub(["sleep", "10"], lambda: os.kill(os.getpid(), number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(Interrupted, match=f"Stopped by {number.name}"):
        run_stub(monkeypatch, tmp_path, stub)
    assert stub.exitcode == -number
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    assert not list((tmp_path / "item").iterdir())  # no reason: it did not fail


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("exit 130", "code 130"),
        ("kill -KILL $$", "ended by SIGKILL"),
        ("exit 7", "code 7"),
        ("true", "code 0"),
    ],
)
def test_an_item_that_cannot_say_why_it_failed_has_a_reason(monkeypatch, tmp_path, command, said):
    locks = []
    stub = Stub(["sh", "-c", command], lambda: locks.append(lock_item(tmp_path / "item")))
    assert run_stub(monkeypatch, tmp_path, stub) == ["item"]
    assert said in work(tmp_path).reason("item")
    assert locks == [None]  # it is locked while it runs
    lock_item(tmp_path / "item").close()


def test_a_disk_without_locks_is_refused(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(SystemSetupError, match="cannot be locked"):
        lock_item(tmp_path / "item")


def test_each_item_has_a_lock_of_its_own(tmp_path):
    with lock_item(tmp_path / "one"), lock_item(tmp_path / "two"):
        assert lock_item(tmp_path / "one") is None
    lock_item(tmp_path / "one").close()


@pytest.mark.parametrize("settled", [False, True])
def test_an_item_of_another_process_is_waited_for_and_done_if_it_was_given_up(monkeypatch, tmp_path, settled):
    """The other process ends while our own item runs; one that was stopped leaves its item to us."""
    lock = lock_item(tmp_path / "theirs")
    started = []
    stub = Stub(["true"], lambda: started.append(not lock.closed))
    monkeypatch.setattr(stub, "join", lambda: (Stub.join(stub), lock.close()))
    if settled:
        write_error(tmp_path / "theirs", DataError("in the other process"), 4)
    assert run_stub(monkeypatch, tmp_path, stub, "theirs", "ours") == ["ours", "theirs"]
    assert started == [True] + [False] * (not settled)


STOPPED = """
import multiprocessing
import os
from pathlib import Path

from ccl_cli.config.recipe import Executor
from ccl_cli.executors import local
from tests.executors.things import Events, work

os.setpgrp()  # with its server, as a shell starts it
preload = multiprocessing.set_forkserver_preload
multiprocessing.set_forkserver_preload = lambda names: preload(["slowly_imported"])
local.run(work(Path()), Executor(), Events())
"""


def test_a_ctrl_c_while_the_server_starts_ends_without_a_traceback(tmp_path):
    """The terminal sends it to the server too, and the item is born with it."""
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
    assert [path.name for path in (tmp_path / "item").iterdir()] == ["log.txt"]
    assert (tmp_path / "item" / "log.txt").read_text() == ""
