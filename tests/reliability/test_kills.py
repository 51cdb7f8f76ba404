"""Commands killed anywhere, told to stop anywhere, and started twice: what they leave, and what they end with."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from ccl_cli.engine.trainer import train
from tests.engine.test_training import recipe
from tests.reliability.killing import Command, emptied, fresh_server
from tests.reliability.left import check_whole, left_over, result


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

    def finish(self, folder: Path) -> None:
        """Go on to the end."""
        code, said = self.start(folder).end()
        if "has finished" not in said or not self.run:
            assert code == 0, said
        assert "Traceback" not in said, said


@dataclass
class Whole:
    """A job that nobody interrupted."""

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


JOBS = ("train", "train 1 worker", "bench", "cache build", "data prepare", "data pack", "index")


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
    (root / "train.yaml").write_text(yaml.safe_dump(values))
    bench = {
        "setups": {"A": values["teachers"][:1]},
        "methods": {"baseline": "baseline", "fitnet": "fitnet"},
        "seeds": [0],
    }
    (root / "bench.yaml").write_text(
        yaml.safe_dump(values | {"name": "bench", "teachers": [], "bench": bench})
    )
    cache = values | {"teachers": ["audio:small?weights=random&seconds=1.0"], "cache": {"views": 2}}
    (root / "cache.yaml").write_text(yaml.safe_dump(cache))
    untaught = recipe(clips_folder, **tiny, teachers=[], method="baseline", train={"max_steps": 1})
    run = train(untaught, output=root / "run")
    once = ("train", "--recipe", str(root / "train.yaml"), "--output", "run")
    made = (
        Job("train", once, "run"),
        Job("train 1 worker", (*once, "--workers", "1"), "run"),
        Job("bench", ("bench", str(root / "bench.yaml"))),
        Job(
            "cache build",
            ("cache", "build", "--recipe", str(root / "cache.yaml")),
            small={"ccl_cli.engine.caching.PART": 4},
        ),
        Job(
            "data prepare", ("data", "prepare", f"folder:{files}", "--output", "set.jsonl", "--workers", "1")
        ),
        Job(
            "data pack",
            (
                "data",
                "pack",
                f"folder:{files}",
                "--output",
                "packed",
                "--workers",
                "0",
                "--shard-size",
                "1",
                "--audio-rate",
                "192000",
            ),
        ),
        Job(
            "index",
            ("index", str(files), "--output", "library", "--model", str(run), "--workers", "0", "--faiss"),
        ),
    )
    assert tuple(job.name for job in made) == JOBS
    return {job.name: job for job in made}


@pytest.fixture
def whole(jobs, tmp_path):
    return lambda name: Whole.made(jobs[name], tmp_path / "whole")


def check_killed(job: Job, folder: Path) -> None:
    """That all that is there is whole, and that a run has lost one step at most."""
    check_whole(folder)
    metrics = folder / "run" / "metrics.jsonl"
    if job.run and metrics.exists() and (taken := len(metrics.read_text().splitlines())) > 1:
        assert max(folder.glob("run/state/step-*.pt")).name >= f"step-{taken - 1:09}.pt"


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_killed_at_a_random_moment(whole, trials, tally, tmp_path, name):
    reference = whole(name)
    for seed in trials(1, 100):
        with tally.trial(f"`{name}` killed at a random moment", f"seed {seed}"):
            chance = random.Random(seed)
            folder = emptied(tmp_path / "killed")
            for _ in range(chance.choice((1, 1, 2, 3))):
                command = reference.job.start(folder)
                if command.wait(chance.uniform(0, reference.seconds)) is None:
                    command.kill(group=chance.random() < 0.5)
                check_killed(reference.job, folder)
            reference.job.finish(folder)
            reference.compare(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_killed_before_each_write(whole, trials, tally, tmp_path, name):
    reference = whole(name)
    every = range(1, reference.writes + 1)
    for number in random.Random(0).sample(every, len(trials(1, len(every)))):
        with tally.trial(f"`{name}` killed before each of its {len(every)} writes", f"write {number}"):
            folder = emptied(tmp_path / "killed")
            command = reference.job.start(folder, before=number)
            command.wait(60)
            assert command.process.exitcode == -9, command.said
            check_killed(reference.job, folder)
            reference.job.finish(folder)
            reference.compare(folder)
