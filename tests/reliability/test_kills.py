"""Commands killed at random, stopped by signals, and started twice: finished files are whole, and resuming gives the same bytes."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from ccl_cli.training.run.checkpoint import newest_state, read_state, write_state
from ccl_cli.training.train import train
from tests.reliability.damage import damage
from tests.reliability.processes import Command, contents, killed_at_random, leftovers, refusal, seeds, until
from tests.training.runs import recipe

REFUSED = r"Error: .*(Another process|is not empty|is running in|has finished)"
WORDS = {
    "train": "train --recipe {root}/train.yaml --output run",
    "train, 1 worker": "train --recipe {root}/train.yaml --output run --workers 1",
    "bench": "bench {root}/bench.yaml",
    "cache build": "cache build --recipe {root}/cache.yaml",
    "data prepare": "data prepare folder:{root}/set --output set.jsonl --workers 1",
    # So much sound that there are several shards.
    "data pack": "data pack folder:{root}/set --output packed --workers 0 --shard-size 1 --audio-rate 192000",
    "index": "index {root}/run {root}/set --output library --workers 0 --approximate",
    "teachers fit": "teachers fit image:small --data folder:{root}/set --epochs 1 --workers 0 --output t.safetensors",
    "predict": "predict {root}/run {root}/set --output rows.csv --workers 0",
    "embed": "embed {root}/run {root}/set --output table.npz --workers 0",
}
QUICK = ("train, 1 worker", "data pack")
each_command = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in WORDS]
)


@dataclass
class Job:
    """A command, and what it leaves where nobody interrupts it."""

    words: list[str]
    seconds: float = 0
    writes: int = 0
    result: object = None

    def start(self, folder: Path, **options: int) -> Command:
        """Start it, or go on with it; a run by ``train --resume``, anything else by the same command."""
        begun = "run" in self.words and (folder / "run" / "recipe.yaml").exists()
        words = ["train", "--resume", "run"] if begun else self.words
        return Command(folder, *words, first=small_parts, **options)

    def finish(self, folder: Path) -> None:
        """Go on to the end, and compare all that is there with what an uninterrupted command leaves."""
        code, text = self.start(folder).end()
        assert code == 0 or "has finished" in text, text
        self.compare(folder)

    def compare(self, folder: Path) -> None:
        found = contents(folder)
        assert [name for name in found if found[name] != self.result.get(name)] == []
        assert found.keys() == self.result.keys()
        assert leftovers(folder) == []


def small_parts() -> None:
    """Let a cache of few videos have several parts."""
    from ccl_cli.training.cache import build

    build.PART = 2


@pytest.fixture(scope="module")
def root(clips_folder, tmp_path_factory) -> Path:
    """A few real files, recipes of runs as short as can be, and a finished run."""
    root = tmp_path_factory.mktemp("kills")
    for path in clips_folder.glob("set/*/*/[0-3].mp4"):
        if path.parts[-3] == "train" or path.stem == "0":
            link = root.joinpath("set", *path.parts[-3:])
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(path)
    tiny = {"data": f"folder:{root / 'set'}", "clip": {"frames": 4, "size": 32, "short_side": 32}}
    steps = {"epochs": 2, "batch_size": 4, "checkpoint_every": 1}
    values = recipe(clips_folder, **tiny, train=steps).model_dump(mode="json")
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
    train(recipe(clips_folder, **tiny, teachers=[], method="baseline", train={"max_steps": 1}), output=root / "run")  # fmt: skip
    return root


@pytest.fixture(scope="module")
def job(root, tmp_path_factory) -> Callable[[str], Job]:
    jobs: dict[str, Job] = {}

    def get(name: str) -> Job:
        if name not in jobs:
            jobs[name] = job = Job(WORDS[name].format(root=root).split())
            folder, began = tmp_path_factory.mktemp("whole") / "work", time.monotonic()
            command = job.start(folder)
            code, text = command.end()
            assert code == 0, text
            job.seconds, job.writes = time.monotonic() - began, command.writes
            job.result = contents(folder)
        return jobs[name]

    return get


@pytest.mark.slow
@each_command
@seeds(1, 20)
def test_killed_at_random_and_gone_on_with(job, tmp_path, name, seed):
    work, folder = job(name), tmp_path / "work"
    start = partial(work.start, folder)
    for again in range(1 + seed % 3):
        killed_at_random(start, 10 * seed + again, work.seconds, work.writes)
        contents(folder)
        check_steps(folder / "run")
    work.finish(folder)


def check_steps(run: Path) -> None:
    """A run that has written a checkpoint at each step has lost one step at most, and has two to go on from."""
    if (run / "metrics.jsonl").exists():
        taken = len((run / "metrics.jsonl").read_text().splitlines())
        states = sorted(path.name for path in run.glob("state/step-*.pt"))
        assert len(states) >= min(2, taken - 1)
        assert taken < 2 or states[-1] >= f"step-{taken - 1:09}.pt"


@pytest.mark.slow
@each_command
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@seeds(1, 8)
def test_told_to_stop_it_says_so_and_goes_on_later(job, tmp_path, name, number, seed):
    work, folder, rng = job(name), tmp_path / "work", random.Random(seed)
    command = work.start(folder)
    command.wait(rng.uniform(0, work.seconds))
    command.send(number, group=rng.random() < 0.5)
    code, text = command.end()
    contents(folder)
    if code:
        assert refusal(code, text, 130).startswith(f"Error: Stopped by {number.name}")
        assert "at step" not in text or "ccl train --resume" in text
        work.finish(folder)
    work.compare(folder)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@seeds(1, 4)
def test_told_to_stop_while_everything_is_imported(root, tmp_path, number, seed):
    """From the moment that a new Python handles SIGUSR1, the last of the signals that ask to stop."""
    process = cold(tmp_path, *WORDS["train"].format(root=root).split())
    until(lambda: handles(process.pid, signal.SIGUSR1), process)
    time.sleep(random.Random(seed).uniform(0, 4))
    process.send_signal(number)
    _, text = process.communicate(timeout=600)
    if process.returncode:
        assert refusal(process.returncode, text, 130).startswith(f"Error: Stopped by {number.name}")


def handles(pid: int, number: int) -> bool:
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(caught and int(caught[1], 16) >> (number - 1) & 1)


def cold(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """``ccl`` in a Python of its own."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "CCL_HOME": str(folder / "home"), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "ccl_cli", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("train", "cache build"),
        *(pytest.param(name, marks=pytest.mark.long) for name in ("bench", "data pack", "index")),
    ],
)
@seeds(1, 8)
def test_started_twice_at_once_one_does_the_work(job, tmp_path, name, seed):
    work, folder = job(name), tmp_path / "work"
    both = [Command(folder, *work.words, first=small_parts) for _ in range(2)]
    (first, text), (second, more) = (command.end() for command in both)
    assert "Traceback" not in text + more, text + more
    assert {0} <= {first, second} <= {0, 2}, text + more
    assert first == second or re.search(REFUSED, text + more), text + more
    work.compare(folder)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_of_two_ranks_is_killed_the_other_ends_and_the_run_goes_on(root, tmp_path, rank):
    words = f"train --recipe {root}/long.yaml --output run --num-processes 2".split()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    cold(whole, *words).communicate(timeout=600)
    process, metrics = cold(killed, *words), killed / "run" / "metrics.jsonl"
    until(lambda: metrics.exists() and metrics.read_text().count("\n") > 7, process)
    assert process.poll() is None
    os.kill(rank_process(killed, rank), signal.SIGKILL)
    _, text = process.communicate(timeout=300)
    assert process.returncode, text
    assert rank_process(killed, 1 - rank) == 0
    contents(killed)
    cold(killed, "train", "--resume", "run", "--num-processes", "2").communicate(timeout=600)
    assert "run/model.safetensors" in contents(whole)
    assert contents(whole) == contents(killed)


def rank_process(folder: Path, rank: int) -> int:
    """The process of a rank that works in a folder; 0 if there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            started_directly = b"forkserver" not in (entry / "cmdline").read_bytes()
            its_rank = f"\0RANK={rank}\0".encode() in (entry / "environ").read_bytes()
            if (entry / "cwd").readlink() == folder and started_directly and its_rank:
                return int(entry.name)
        except OSError:
            continue
    return 0


def state(step: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(step)
    weights = {f"layer.{number}": torch.randn(20, 30, generator=generator) for number in range(6)}
    return {"step": step, "distiller": weights, "states": {1: {"audio": "present"}}}


@seeds(30, 1000)
def test_nothing_of_a_damaged_checkpoint_is_used_or_kept(tmp_path, monkeypatch, caplog, seed):
    monkeypatch.setattr(logging.getLogger("ccl"), "propagate", True)
    _, _, newest = (write_state(tmp_path, step, state(step)) for step in (1, 2, 3))
    newest.write_bytes(damage(newest.read_bytes(), random.Random(seed)))
    loaded = read_state(newest_state(tmp_path))
    # A bit that nothing reads, such as a date within the file, does no harm.
    assert loaded["step"] == 3 or "step-000000003.pt is damaged" in caplog.text
    wanted = state(loaded["step"])
    assert all(torch.equal(loaded["distiller"][name], value) for name, value in wanted["distiller"].items())
    assert loaded["states"] == wanted["states"]
    assert len(list(tmp_path.iterdir())) == (2 if loaded["step"] == 3 else 1)
