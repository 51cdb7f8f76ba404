"""Disks that fill up, refuse, lose files or tell the wrong time: a sentence, an exit code, and nothing lost."""

from __future__ import annotations

import json
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
