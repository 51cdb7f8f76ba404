"""Disks that fill up, refuse, lose files or tell the wrong time: a sentence, an exit code, and nothing lost."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.warm import warm_ccl
from tests.reliability.processes import Ccl, Disk, check_refusal, contents, small_disk

RECIPE = """\
name: small
data: folder:{videos}
student: r2plus1d_tiny
teachers: [audio:precomputed@{audio}]
clip: {{frames: 4, size: 32, short_side: 48, flip: 0.0}}
train: {{epochs: 2, batch_size: 4, workers: 0, log_every: 1, precision: fp32, checkpoint_every: 1}}
eval: {{batch_size: 8, stride: 8}}
bench:
  setups: {{A: audio:precomputed@{audio}}}
  methods: {{baseline: baseline}}
  seeds: [0]
"""


@dataclass(frozen=True)
class World:
    """Videos, a recipe, a finished run, and the program.

    Attributes:
        root: A folder that every user may read.
        ccl: Starts commands, with the cache, the runs and everything else below ``root``.
    """

    root: Path
    ccl: Ccl

    @property
    def videos(self) -> Path:
        return self.root / "set"

    @property
    def recipe(self) -> Path:
        return self.root / "small.yaml"

    @property
    def run(self) -> Path:
        return self.root / "run"


@pytest.fixture(scope="module")
def world(clips_folder) -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix="ccl-disk-"))  # pytest's own folders are closed to other users
    root.chmod(0o755)
    shutil.copytree(clips_folder, root, dirs_exist_ok=True)
    text = RECIPE.format(videos=root / "set", audio=root / "audio.npz")
    (root / "small.yaml").write_text(text)
    with warm_ccl(root / "warm") as programs:
        ccl = Ccl(programs, {"CCL_HOME": str(root / "home"), "CCL_RUNS": str(root / "runs")})
        made = World(root, ccl)
        ccl.right("train", "--recipe", made.recipe, "--output", made.run)
        ccl.right("eval", made.run)
        yield made
    shutil.rmtree(root)


TEACHER = ("--teacher", "image:small?weights=random", "--views", "2")
# What each command writes on the disk: its words, and the variables that lead there.
COMMANDS = {
    "train": ("train --recipe {recipe} --output {disk}/out", {}),
    "eval": ("eval {disk}/run --retrieval", {}),
    "bench": ("bench {recipe}", {"CCL_RUNS": "{disk}/out"}),
    "cache build": (
        "cache build --data folder:{videos} --workers 0 --teacher image:small?weights=random --views 64",
        {"CCL_HOME": "{disk}/out"},
    ),
    "data prepare": (
        "data prepare folder:{videos} --workers 1 --output {disk}/out.jsonl",
        {"CCL_HOME": "{disk}/out"},
    ),
    "data pack": ("data pack folder:{videos} --output {disk}/out --workers 0 --shard-size 0.02", {}),
    "index": ("index {videos} --output {disk}/out --model {run} --workers 0", {}),
    "embed .npz": ("embed {videos} --output {disk}/out.npz --model {run} --workers 0", {}),
    "embed .safetensors": ("embed {videos} --output {disk}/out.safetensors --model {run} --workers 0", {}),
    "embed .parquet": ("embed {videos} --output {disk}/out.parquet --model {run} --workers 0", {}),
    "predict --output": ("predict {videos} --output {disk}/out.csv --model {run} --workers 0", {}),
    "export": ("export {run} --output {disk}/out --format torch", {}),
    "report table": ("report table {run} --output {disk}/out.csv", {}),
    "report html": ("report html {run} --output {disk}/out.html", {}),
    "card": ("card {run} --output {disk}/out.md", {}),
    "search --html": ("search {videos} --index {root}/library --html {disk}/out.html", {}),
    "teachers fit": (
        "teachers fit image:small --data folder:{videos} --epochs 1 --workers 0 --output {disk}/out.safetensors",
        {},
    ),
}


def words(world: World, name: str, disk: Path) -> tuple[list[str], dict[str, str]]:
    """A command's words and variables, for a disk that is mounted there."""
    text, environment = COMMANDS[name]
    places = {"recipe": world.recipe, "videos": world.videos, "run": world.run, "root": world.root}
    return (
        text.format(disk=disk, **places).split(),
        {key: value.format(disk=disk) for key, value in environment.items()},
    )


def empty(world: World, disk: Disk) -> None:
    """As the disk is before a command: somebody's file, and a run to evaluate."""
    disk.clear()
    for path in disk.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(world.run, disk.folder / "run", ignore=shutil.ignore_patterns("state"))
    (disk.folder / "precious.txt").write_text("somebody's")


# What differs from one time to the next although nothing else does.
_TOLD = {"summary.json", "metrics.jsonl", "log.txt", ".lock", "cache.json", "error.json", "cell.json"}


def lasting(files: dict[str, str]) -> dict[str, str]:
    """Those files that are the same whenever a command has come to its end."""
    changing = ("findings-", "about", "library.sqlite")
    return {
        name: digest
        for name, digest in files.items()
        if Path(name).name not in _TOLD
        and not Path(name).name.startswith(changing)
        and "/state/" not in name
        and not name.endswith((".pt2", "export.json", ".html"))
    }


def half_written(files: dict[str, str], whole: dict[str, str]) -> list[str]:
    """Files that pass for a result and are none."""
    kept = lasting(files)
    parts = (".partial.", ".building/", "-wal", "-shm", "-journal", ".part")
    return [
        name
        for name in kept
        if not any(part in name for part in parts) and kept[name] != lasting(whole).get(name, kept[name])
    ]


QUICK = ["predict --output", "report table", "card"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in COMMANDS])
def test_a_disk_that_fills_up_costs_no_more_than_the_command(world, tally, trials, name, tmp_path):
    """At several sizes of what is left: refused in a sentence, what was there is there, and then it works."""
    rng = random.Random(name)
    with small_disk(tmp_path / "disk") as disk:
        empty(world, disk)
        arguments, environment = words(world, name, disk.folder)
        before, used = contents(disk.folder), disk.used
        world.ccl.right(*arguments, **environment)
        need = max(disk.used - used, 4096)
        whole = contents(disk.folder)
        steps = trials(1, 4 if name in ("bench", "export") else 16)
        for number in steps:
            free = 4096 * int(need * (number + rng.random()) / len(steps) / 4096)
            with tally.trial(f"disk full: `ccl {name.split(' .')[0]}`", f"{free} of {need} bytes free"):
                empty(world, disk)
                disk.leave(free)
                ended = world.ccl(*arguments, **environment)
                now = contents(disk.folder)
                if ended.code:
                    check_refusal(ended, 6, 1 if name == "bench" else 6)
                    assert lasting(before).items() <= lasting(now).items() or name == "eval"
                    assert not half_written(now, whole)
                assert not [left for left in now if left.endswith(".tmp")]
                disk.clear()
                again = [*arguments, "--resume", "auto"] if name == "train" else arguments
                world.ccl.right(*again, **environment)
                assert lasting(contents(disk.folder)) == lasting(whole)
