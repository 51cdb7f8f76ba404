"""Commands killed anywhere, told to stop anywhere, and started twice: what they leave, and what they end with."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest
import torch
import yaml

from ccl_cli.training.checkpoint import load_state, save_state
from ccl_cli.training.train import train
from tests.reliability.killing import Command, emptied, fresh_server
from tests.reliability.left import check_whole, left_over, result, same
from tests.training.test_training import recipe

REFUSED = r"Error: .*(Another process|is not empty|is running in|has finished)"
JOBS = ("train", "train, 1 worker", "bench", "cache build", "data prepare", "data pack", "index")


def each(names: Sequence[str], *quick: str) -> pytest.MarkDecorator:
    """A test of each of these, only some of which are tried with every change."""
    cases = [pytest.param(name, marks=() if name in quick else pytest.mark.long) for name in names]
    return pytest.mark.parametrize("name", cases)


@dataclass(frozen=True)
class Job:
    """A command to kill.

    Attributes:
        arguments: Of the first start.
        run: The run folder, if ``train --resume`` goes on with it; "" if the same command does.
        small: Constants of modules, made smaller.
    """

    name: str
    arguments: tuple[str, ...]
    run: str = ""
    small: dict[str, int] = field(default_factory=dict)

    def start(self, folder: Path, before: int = 0) -> Command:
        """Start it, or go on with it."""
        begun = self.run and (folder / self.run / "recipe.yaml").exists()
        arguments = ("train", "--resume", self.run) if begun else self.arguments
        return Command(arguments, folder, before=before, small=self.small)

    def finish(self, folder: Path) -> str:
        """Go on to the end; what it says."""
        code, said = self.start(folder).end()
        assert code == 0 or (self.run and "has finished" in said), said
        assert "Traceback" not in said, said
        return said


@dataclass
class Whole:
    """A job that nobody interrupted, and what it left."""

    job: Job
    folder: Path
    seconds: float
    writes: int

    @classmethod
    def made(cls, job: Job, folder: Path) -> Whole:
        command = job.start(emptied(folder))
        code, said = command.end()
        assert code == 0, said
        return cls(job, folder, time.monotonic() - command.began, command.writes)

    def compare(self, folder: Path) -> None:
        """That a folder holds the same to the bit, and nothing besides."""
        wanted, found = result(self.folder), result(folder)
        assert wanted.keys() == found.keys()
        for name, value in wanted.items():
            assert found[name] == value, f"'{name}' differs"
        assert left_over(folder) == left_over(self.folder)

    def interrupted(self, folder: Path, chance: random.Random) -> Command:
        """The job begun in an empty folder, or gone on with, and in the middle of it."""
        while True:
            command = self.job.start(emptied(folder))
            if command.wait(chance.uniform(0, self.seconds)) is None:
                return command


@pytest.fixture(scope="module")
def jobs(clips_folder, tmp_path_factory) -> dict[str, Job]:
    """One of each command, on real files, as short as can be."""
    fresh_server()
    root = tmp_path_factory.mktemp("kills")
    files = root / "set"
    for path in clips_folder.glob("set/*/*/[0-3].mp4"):
        if path.parts[-3] == "train" or path.stem == "0":
            link = files.joinpath(*path.parts[-3:])
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(path)
    tiny = {"data": f"folder:{files}", "clip": {"frames": 4, "size": 32, "short_side": 32}}
    short = {"epochs": 2, "batch_size": 4, "checkpoint_every": 1}
    values = recipe(clips_folder, **tiny, train=short).model_dump(mode="json")
    cells = {"baseline": "baseline", "fitnet": "fitnet"}
    bench = {"setups": {"A": values["teachers"][:1]}, "methods": cells, "seeds": [0]}
    recipes = {
        "train": values,
        "long": values | {"train": values["train"] | {"epochs": 12, "checkpoint_every": 5}},
        "bench": values | {"name": "bench", "teachers": [], "bench": bench},
        "cache": values | {"teachers": ["audio:small?weights=random&seconds=1.0"], "cache": {"views": 2}},
    }
    for name, each in recipes.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump(each))
    untaught = recipe(clips_folder, **tiny, teachers=[], method="baseline", train={"max_steps": 1})
    run = train(untaught, output=root / "run")
    once = ("train", "--recipe", str(root / "train.yaml"), "--output", "run")
    source, few = f"folder:{files}", {"ccl_cli.training.caching.PART": 2}
    sound = ("--shard-size", "1", "--audio-rate", "192000")  # so much of it that there are several shards
    made = (
        Job("train", once, "run"),
        Job("train, 1 worker", (*once, "--workers", "1"), "run"),
        Job("bench", ("bench", str(root / "bench.yaml"))),
        Job("cache build", ("cache", "build", "--recipe", str(root / "cache.yaml")), small=few),
        Job("data prepare", ("data", "prepare", source, "--output", "set.jsonl", "--workers", "1")),
        Job("data pack", ("data", "pack", source, "--output", "packed", "--workers", "0", *sound)),
        Job("index", ("index", str(files), "--output", "library", "--model", str(run), "--workers", "0", "--faiss")),
        Job("long", ("train", "--recipe", str(root / "long.yaml"), "--output", "run"), "run"),
    )  # fmt: skip
    return {job.name: job for job in made}


@pytest.fixture(scope="module")
def whole(jobs, tmp_path_factory) -> Callable[[str], Whole]:
    """Each job as it is without an interruption."""
    made: dict[str, Whole] = {}

    def get(name: str) -> Whole:
        if name not in made:
            made[name] = Whole.made(jobs[name], tmp_path_factory.mktemp("whole") / "work")
        return made[name]

    return get


# ---- killed


def check_killed(job: Job, folder: Path) -> None:
    """That all that is there is whole; that a run has lost one step at most, and still has two to go on from."""
    check_whole(folder)
    metrics = folder / "run" / "metrics.jsonl"
    if job.run and metrics.exists():
        taken = len(metrics.read_text().splitlines())
        states = sorted(path.name for path in folder.glob("run/state/step-*.pt"))
        assert len(states) >= min(2, taken - 1)
        assert taken < 2 or states[-1] >= f"step-{taken - 1:09}.pt"


@pytest.mark.slow
@each(JOBS, "train", "data pack")
def test_killed_at_a_random_moment(whole, trials, tally, tmp_path, name):
    reference = whole(name)
    folder = tmp_path / "killed"
    for seed in trials(1, 25 if "worker" in name else 100):
        with tally.trial(f"`{name}` killed at a random moment, once to three times", f"seed {seed}"):
            chance = random.Random(seed)
            command = reference.interrupted(folder, chance)
            for again in reversed(range(chance.choice((1, 1, 2, 3)))):
                command.kill(group=chance.random() < 0.5)
                check_killed(reference.job, folder)
                if again:
                    command = reference.job.start(folder)
                    command.wait(chance.uniform(0, reference.seconds))
            reference.job.finish(folder)
            reference.compare(folder)


@pytest.mark.slow
@each(JOBS, "train")
def test_killed_before_each_write(whole, trials, tally, tmp_path, name):
    reference = whole(name)
    every = range(1, reference.writes + 1)
    folder = tmp_path / "killed"
    for number in random.Random(name).sample(every, len(trials(1, len(every)))):
        with tally.trial(f"`{name}` killed before each of its writes", f"write {number}"):
            command = reference.job.start(emptied(folder), before=number)
            assert command.wait(900) == -signal.SIGKILL, command.said
            check_killed(reference.job, folder)
            reference.job.finish(folder)
            reference.compare(folder)


# ---- damaged checkpoints

DAMAGES: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "cut off": lambda data, chance: data[: chance.randrange(len(data))],
    "with a flipped bit": lambda data, chance: flipped(data, chance.randrange(len(data)), 1 << chance.randrange(8)),
    "with a block of zeros": lambda data, chance: zeroed(data, chance.randrange(len(data)), chance.randrange(1, 4096)),
    "empty": lambda data, chance: b"",
    "gone": lambda data, chance: None,
}  # fmt: skip


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


def zeroed(data: bytes, place: int, count: int) -> bytes:
    return data[:place] + bytes(len(data[place : place + count])) + data[place + count :]


def damage(path: Path, how: str, chance: random.Random) -> None:
    data = DAMAGES[how](path.read_bytes(), chance)
    path.unlink()
    if data is not None:
        path.write_bytes(data)


def small_state(step: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(step)
    weights = {f"layer.{number}": torch.randn(20, 30, generator=generator) for number in range(6)}
    momenta = {number: {"momentum_buffer": torch.randn(60, generator=generator)} for number in range(6)}
    return {
        "step": step,
        "distiller": weights,
        "optimizer": {"state": momenta},
        "states": {1: {"audio": "present"}},
    }


@pytest.mark.parametrize("how", DAMAGES)
def test_of_a_damaged_checkpoint_nothing_is_used(trials, tally, tmp_path, monkeypatch, caplog, how):
    monkeypatch.setattr(logging.getLogger("ccl"), "propagate", True)
    for step in 1, 2, 3:
        newest = save_state(tmp_path, step, small_state(step))
    whole = newest.read_bytes()
    for seed in trials(20, 1 if how in ("empty", "gone") else 1000):
        with tally.trial(f"newest checkpoint {how}: the one before is read", f"seed {seed}"):
            newest.write_bytes(whole)
            damage(newest, how, random.Random(seed))
            caplog.clear()
            state = load_state(tmp_path)
            # A bit that nothing reads, such as a date within the file, does no harm.
            assert any(same(state, small_state(step)) for step in (2, 3)), "other values"
            assert how == "gone" or state["step"] == 3 or "step-000000003.pt is damaged" in caplog.text
    newest.write_bytes(whole[:1000])
    again = save_state(tmp_path, 2, small_state(2))
    assert list(tmp_path.iterdir()) == [
        again
    ]  # else the damaged one would be taken for one of the newest two


@pytest.mark.slow
@each(list(DAMAGES), "with a flipped bit")
def test_resumed_from_before_a_damaged_checkpoint_it_is_the_same_run(whole, trials, tally, tmp_path, name):
    reference = whole("train")
    folder = tmp_path / "damaged"
    for seed in trials(1, 10):
        with tally.trial(f"`train --resume` with the newest checkpoint {name}", f"seed {seed}"):
            chance = random.Random(seed)
            states: list[Path] = []
            while len(states) < 2:
                number = chance.randrange(reference.writes // 2, reference.writes)
                reference.job.start(emptied(folder), before=number).wait(900)
                states = sorted(folder.glob("run/state/step-*.pt"))
            damage(states[-1], name, chance)
            said = reference.job.finish(folder)
            assert name == "gone" or "has finished" in said or re.search(r"is damaged|from step", said)
            reference.compare(folder)


# ---- told to stop


def check_stopped(reference: Whole, folder: Path, code: int, said: str, name: str) -> None:
    """That it says so, and that its work is kept; or that it had just done it."""
    assert "Traceback" not in said, said
    assert "Exception ignored" not in said, said
    check_killed(reference.job, folder)
    if code == 130:
        assert f"Error: Stopped by {name}" in said, said
        reference.job.finish(folder)
    else:
        assert code == 0, said
    reference.compare(folder)


@pytest.mark.slow
@each(JOBS, "train")
def test_told_to_stop_at_a_random_moment(whole, trials, tally, tmp_path, name):
    reference = whole(name)
    folder = tmp_path / "stopped"
    for seed in trials(1, 30):
        number = (signal.SIGTERM, signal.SIGINT)[seed % 2]
        with tally.trial(f"`{name}` told to stop by SIGTERM or Ctrl-C", f"seed {seed}"):
            chance = random.Random(seed)
            command = reference.interrupted(folder, chance)
            command.send(number, group=chance.random() < 0.5)
            check_stopped(reference, folder, *command.end(), number.name)


@pytest.mark.slow
@pytest.mark.long
def test_told_to_stop_while_everything_is_imported(whole, trials, tally, tmp_path):
    """A process from the moment that it heeds signals: Python itself has to start before that."""
    reference = whole("train, 1 worker")
    folder = tmp_path / "stopped"
    times = []
    for seed in trials(3, 20):
        number = (signal.SIGTERM, signal.SIGINT)[seed % 2]
        with tally.trial(
            "`train` told to stop while it imports and starts, from a cold start", f"seed {seed}"
        ):
            emptied(folder)
            process = cold(folder, *reference.job.arguments)
            began = time.monotonic()
            while not heeds(process.pid):
                time.sleep(0.001)
            times.append(time.monotonic() - began)
            time.sleep(random.Random(seed).uniform(0, 6))
            process.send_signal(number)
            _, said = process.communicate(timeout=600)
            check_stopped(reference, folder, process.returncode, said, number.name)
    tally.figure(
        "from the start of Python until `ccl` heeds signals, median", f"{1000 * median(times):.0f} ms"
    )


def heeds(pid: int) -> bool:
    """Whether a process handles the signals that ask to stop, of which SIGUSR1 is the last."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(caught and int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1)


def cold(folder: Path, *arguments: str, module: str = "ccl_cli") -> subprocess.Popen[str]:
    """A Python of its own; all that it says is on stderr."""
    environment = {**os.environ, "CCL_HOME": str(folder / "home"), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


# ---- two processes


@pytest.mark.slow
@each([name for name in JOBS if name not in ("train, 1 worker", "data prepare")], "train")
def test_of_two_processes_in_one_folder_the_second_is_refused(whole, trials, tally, tmp_path, name):
    reference = whole(name)
    folder = tmp_path / "both"
    says = "the second waits" if name == "cache build" else "the second is refused"
    for seed in trials(1, 25):
        with tally.trial(f"`{name}` twice in one folder: {says}", f"seed {seed}"):
            first = reference.interrupted(folder, random.Random(seed))
            first.send(signal.SIGSTOP, group=False)  # so that it is known what it holds when the second comes
            held = any(is_held(lock) for lock in folder.rglob(".*lock"))
            second = reference.job.start(folder)
            if held and name == "cache build":
                while "Waiting for it" not in second.said:
                    assert second.wait(0.01) is None, second.said
            elif held:
                code, said = second.end()
                assert code == 2, said
                assert re.search(REFUSED, said), said
            first.send(signal.SIGCONT, group=False)
            codes, said = {first.end()[0], second.end()[0]}, first.said + second.said
            assert "Traceback" not in said, said
            assert 0 in codes <= {0, 2}, said
            reference.compare(folder)


@pytest.mark.slow
@each([name for name in JOBS if name not in ("train, 1 worker", "data prepare")])
def test_of_two_processes_started_at_once_one_does_the_work(whole, trials, tally, tmp_path, name):
    reference = whole(name)
    folder = tmp_path / "both"
    for seed in trials(1, 10):
        with tally.trial(f"`{name}` started twice at once: one does it, the other says so", f"start {seed}"):
            both = [Command(reference.job.arguments, emptied(folder), small=reference.job.small)]
            both += [Command(reference.job.arguments, folder, small=reference.job.small)]
            codes, said = {each.end()[0] for each in both}, both[0].said + both[1].said
            assert "Traceback" not in said, said
            assert 0 in codes <= {0, 2}, said
            assert codes == {0} or re.search(REFUSED, said), said
            reference.compare(folder)


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock file."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# ---- two ranks


def ranks(folder: Path) -> dict[str, int]:
    """The processes of a run of several, by number."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                rank = re.search(rb"\0RANK=(\d)\0", b"\0" + (entry / "environ").read_bytes())
                if rank and b"forkserver" not in (entry / "cmdline").read_bytes():
                    found[rank[1].decode()] = int(entry.name)
    return found


LAUNCHERS = {
    "--num-processes 2": ("ccl_cli", (), ("--num-processes", "2")),
    "torchrun": (
        "torch.distributed.run",
        ("--standalone", "--nproc_per_node", "2", "-m", "ccl_cli"),
        (),
    ),
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_when_one_of_two_ranks_is_killed_the_other_ends(jobs, trials, tally, tmp_path, launcher):
    module, before, after = LAUNCHERS[launcher]
    arguments = (*jobs["long"].arguments, *after)
    wanted = emptied(tmp_path / "whole")
    process = cold(wanted, *before, *arguments, module=module)
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    times = []
    for seed in trials(2, 4 if "num" in launcher else 2):
        with tally.trial(
            f"`train`, {launcher}, one rank killed: the other ends, and says so", f"seed {seed}"
        ):
            chance, folder = random.Random(seed), emptied(tmp_path / "killed")
            process = cold(folder, *before, *arguments, module=module)
            metrics, lines = folder / "run" / "metrics.jsonl", chance.randrange(1, 20)
            while not metrics.exists() or len(metrics.read_text().splitlines()) < lines:
                assert process.poll() is None
                time.sleep(0.01)
            os.kill(ranks(folder)[str(seed % 2)], signal.SIGKILL)
            began = time.monotonic()
            _, said = process.communicate(timeout=600)
            times.append(time.monotonic() - began)
            assert process.returncode
            assert not ranks(folder)
            assert re.search(r"Process \d of 2 failed first|Another process of this run ended", said), said
            check_whole(folder)
            process = cold(folder, *before, "train", "--resume", "run", *after, module=module)
            _, said = process.communicate(timeout=900)
            assert process.returncode == 0, said
            same_run(result(wanted), result(folder))
    tally.figure(
        f"`train`, {launcher}: from the kill of a rank to the end of all, at most", f"{max(times):.1f} s"
    )


def same_run(wanted: dict[str, object], found: dict[str, object]) -> None:
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        assert found[name] == value, f"'{name}' differs"
