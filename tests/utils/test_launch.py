"""The launcher with real processes: a command that a plugin adds behaves differently by rank."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ccl_cli.errors import SystemSetupError
from ccl_cli.utils.processes import launch
from tests.helpers.plugin_folder import install

PROBE = """
import json, os, signal, sys, time
from pathlib import Path
import typer
from ccl_cli.errors import DataError, Interrupted

app = typer.Typer()
rank = int(os.environ.get("RANK", "-1"))
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1

@app.command()
def main(folder: Path, act: str) -> None:
    (folder / f"{rank}.json").write_text(json.dumps({**os.environ, "pid": os.getpid(), "argv": sys.argv[1:]}))
    globals()[act](folder)

def wait(folder, handler):
    for number in SIGNALS: signal.signal(number, handler)
    (folder / f"{rank}.ready").touch()
    time.sleep(60)

def nothing(folder):
    import queue
    print("result of", rank, queue.Queue.__name__)
def all_fail(folder): raise DataError("No videos.", "Get some.")
def last_fails(folder):
    if rank == 1: raise DataError("Rank one sees no videos.")
    time.sleep(60)
def last_is_killed(folder):
    if rank == 1: os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
def last_is_deaf(folder):
    if rank == 1: wait(folder, signal.SIG_IGN)
    while not (folder / "1.ready").exists(): time.sleep(0.01)
    raise DataError("First fails.")
def lost_first(folder):
    if rank == 0: raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]")
    time.sleep(0.5)
    raise OSError(28, "No space left on device")
def all_lost(folder): raise RuntimeError("Connection reset by peer")
def all_deaf(folder): wait(folder, signal.SIG_IGN)
def waits(folder):
    def leave(number, frame):
        (folder / f"{rank}.signal").write_text(signal.Signals(number).name)
        raise Interrupted("Stopped and saved.")
    wait(folder, leave)
"""

ROOT = Path(launch.__file__).resolve().parents[3]
START = "import sys; from ccl_cli.utils.processes import launch; sys.exit(launch.launch(2, sys.argv[1:]))"


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Launch two processes that do one thing; returns what the launcher's own process did."""
    site = tmp_path / "site"
    install(site, "probe", "[ccl.commands]\nact = probe_mod:app\n", modules={"probe_mod": PROBE})
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def begin(act: str, start: str = START, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, *options, "-c", start, "act", str(tmp_path), act]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return begin


def finish(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def wait_for(*paths) -> None:
    end = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_each_process_finds_the_others(probe, tmp_path):
    code, out, _ = finish(probe("nothing"))
    assert (code, out) == (0, "result of 0 Queue\n")  # only the first one writes
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for rank, environment in enumerate((first, second)):
        assert environment["RANK"] == environment["LOCAL_RANK"] == str(rank)
        assert environment["WORLD_SIZE"] == environment["LOCAL_WORLD_SIZE"] == "2"
        assert environment["MASTER_ADDR"] == "127.0.0.1"
        assert environment["ACCELERATE_USE_CPU"] == "true"
    assert first["MASTER_PORT"] == second["MASTER_PORT"] != "0"
    assert first["argv"] == ["act", str(tmp_path), "nothing"]


FIRST_FAILED = "Process 1 of 2 failed first, exit code {}."
NO_SPACE = ["Error: No space left on device.", "  Free some disk space, and run the same command again."]


@pytest.mark.parametrize(
    ("act", "code", "lines"),
    [
        ("all_fail", 4, ["Error: No videos.", "  Get some."]),
        ("last_fails", 4, ["Error: Rank one sees no videos.", FIRST_FAILED.format(4)]),
        ("last_is_killed", 137, ["", FIRST_FAILED.format(137), "It was ended by SIGKILL"]),
        ("last_is_deaf", 4, ["Error: First fails."]),
        ("lost_first", 6, ["Error: Another process of this run failed", *NO_SPACE, FIRST_FAILED.format(6)]),
        ("all_lost", 6, ["Error: Another process of this run failed; see its error message."]),
    ],
)
def test_a_failure_ends_all_and_is_told_once_by_who_is_to_blame(probe, tmp_path, act, code, lines):
    impatient = START.replace("launch;", "launch; launch._GRACE = 0.5; launch._SETTLE = 1.0;")
    begin = time.monotonic()
    returned, _, err = finish(probe(act, impatient))
    assert returned == code
    # Those that were stopped may say so before.
    for line, start in zip(err.splitlines()[-len(lines) :], lines, strict=True):
        assert line.startswith(start)
    assert time.monotonic() - begin < 50
    assert all(gone(json.loads(path.read_text())["pid"]) for path in tmp_path.glob("?.json"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_signals_reach_every_process_once_and_the_exit_code_is_theirs(probe, tmp_path, name):
    process = probe("waits")
    wait_for(tmp_path / "0.ready", tmp_path / "1.ready")
    process.send_signal(getattr(signal, name))
    code, _, err = finish(process)
    assert code == 130
    assert [(tmp_path / f"{rank}.signal").read_text() for rank in (0, 1)] == [name, name]
    assert err.splitlines() == ["Error: Stopped and saved."]


def test_those_deaf_to_a_signal_are_killed(probe, tmp_path):
    process = probe("all_deaf", START.replace("launch;", "launch; launch._SAVE = launch._GRACE = 0.5;"))
    wait_for(tmp_path / "0.ready", tmp_path / "1.ready")
    process.send_signal(signal.SIGTERM)
    assert finish(process, 20)[0] == 137


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_launcher_that_is_killed_leaves_nothing_behind(probe, tmp_path):
    process = probe("waits")
    wait_for(tmp_path / "0.ready", tmp_path / "1.ready")
    process.kill()
    process.communicate()
    wait_for(tmp_path / "0.signal", tmp_path / "1.signal")
    end = time.monotonic() + 10
    while not all(gone(json.loads(path.read_text())["pid"]) for path in tmp_path.glob("?.json")):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(("folder", "options"), [(".", ["-P"]), ("site", [])])
def test_processes_find_the_modules_that_the_launcher_finds(probe, tmp_path, monkeypatch, folder, options):
    """With -P, as in the script `ccl`, a file in the current folder hides no module; without it, it is found."""
    sites = [str(tmp_path / "site")] if options else []
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sites]))
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong queue')")
    monkeypatch.chdir(tmp_path / folder)
    assert finish(probe("nothing", START, *options))[:2] == (0, "result of 0 Queue\n")


@pytest.mark.parametrize(
    ("gpus", "forced", "cpu"), [(0, "", True), (2, "", False), (4, "", False), (1, "true", True)]
)
def test_processes_use_gpus_where_there_are_enough(monkeypatch, gpus, forced, cpu):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setenv("ACCELERATE_USE_CPU", forced)
    assert launch._on_cpu(2) is cpu
    if not cpu:
        with pytest.raises(SystemSetupError, match=f"5 processes need 5 GPUs, and there are {gpus}"):
            launch.launch(5, ["train"])
