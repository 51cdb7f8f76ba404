"""Disks that fill up, refuse, lose files or tell the wrong time: a sentence, an exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ccl_cli.__main__ import main
from ccl_cli.config.load import to_yaml
from ccl_cli.data.manifest import Manifest
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import CclError
from ccl_cli.training.run.checkpoint import write_state
from ccl_cli.training.train import train
from ccl_cli.utils.files import write_text
from ccl_cli.utils.rows import csv_form, row_file
from ccl_cli.utils.tensor_files import write_tensors
from tests.reliability.bounds import Disk, small_disk
from tests.reliability.processes import Command, contents, leftovers, refusal, seeds
from tests.training.runs import recipe


@pytest.fixture(scope="module")
def root(clips_folder, tmp_path_factory) -> Path:
    """Videos, recipes, a finished run that has been evaluated, and a library."""
    root = tmp_path_factory.mktemp("disk")
    shutil.copytree(clips_folder / "set", root / "set")
    changes = {"data": f"folder:{root / 'set'}", "clip": {"frames": 4, "size": 32, "short_side": 48}}
    changes |= {"teachers": [f"audio:precomputed@{clips_folder / 'audio.npz'}"], "method": "fitnet", "optim": {"lr": 1e-4}}  # fmt: skip
    small = recipe(clips_folder, **changes, train={"epochs": 2, "batch_size": 4, "checkpoint_every": 1})
    (root / "small.yaml").write_text(to_yaml(small))
    bench = {"setups": {"A": small.teachers}, "methods": {"baseline": "baseline"}, "seeds": [0]}
    (root / "bench.yaml").write_text(json.dumps(small.model_dump(mode="json") | {"teachers": [], "bench": bench}))  # fmt: skip
    train(small, output=root / "run")
    assert main(["eval", str(root / "run")]) == 0
    library = ["--output", str(root / "library"), "--workers", "0"]
    assert main(["index", str(root / "run"), str(root / "set"), *library]) == 0
    return root


WRITING = {
    "train": "train --recipe {root}/small.yaml --output {disk}/out --resume auto",
    "eval": "eval {disk}/run --retrieval",
    "bench": "bench {root}/bench.yaml",
    "cache build": "cache build --data folder:{root}/set --workers 0 --teacher image:small?weights=random --views 64",
    "data prepare": "data prepare folder:{root}/set --workers 1 --output {disk}/out.jsonl",
    "data pack": "data pack folder:{root}/set --output {disk}/out --workers 0 --shard-size 1",
    "index": "index {root}/run {root}/set --output {disk}/out --workers 0",
    "embed .npz": "embed {root}/run {root}/set --output {disk}/out.npz --workers 0",
    "embed .safetensors": "embed {root}/run {root}/set --output {disk}/out.safetensors --workers 0",
    "embed .parquet": "embed {root}/run {root}/set --output {disk}/out.parquet --workers 0",
    "predict": "predict {root}/run {root}/set --output {disk}/out.csv --workers 0",
    "model export": "model export {root}/run --output {disk}/out --format torch",
    "report table": "report table {root}/run --output {disk}/out.csv",
    "report html": "report html {root}/run --output {disk}/out.html",
    "model card": "model card {root}/run --output {disk}/out.md",
    "search --html": "search {root}/set --index {root}/library --html {disk}/out.html",
    "teachers fit": "teachers fit image:small --data folder:{root}/set --epochs 1 --workers 0 --output {disk}/out.safetensors",
}
QUICK = ("train", "predict", "report table")
each_writer = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in WRITING]
)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def prepare(disk: Disk, root: Path) -> None:
    """Somebody's file, and a run to evaluate, and nothing else."""
    disk.clear()
    for path in disk.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(
        root / "run", disk.folder / "run", ignore=shutil.ignore_patterns("state", "predictions-*")
    )
    (disk.folder / "precious.csv").write_text("somebody's")


def start(disk: Disk, root: Path, name: str) -> tuple[int, str]:
    words = WRITING[name].format(root=root, disk=disk.folder).split()
    # Its own output has room elsewhere; caches and runs have none.
    places = {"CCL_HOME": disk.folder / "home", "CCL_RUNS": disk.folder / "runs"}
    return Command(disk.folder.parent / "work", *words, **places).end()


def finished(disk: Disk) -> dict[str, object]:
    """All but what tells a time in its bytes."""
    varying = (".html", ".pt2", "export.json", "summary.json", "cell.json", "error.json", ".parquet")
    return {name: value for name, value in contents(disk.folder).items() if not name.endswith(varying)}


@pytest.mark.slow
@each_writer
@seeds(1, 4)
def test_a_full_disk_costs_no_more_than_the_command(root, disk, name, seed):
    prepare(disk, root)
    before, used = finished(disk), disk.used
    assert start(disk, root, name)[0] == 0
    need, whole = max(disk.used - used, 8192), finished(disk)
    prepare(disk, root)
    disk.leave(4096 * int(need * random.Random(seed).uniform(0, 0.9) / 4096))
    code, text = start(disk, root, name)
    if code:
        refusal(code, text, *([1] if name == "bench" else [6]))
        assert {key for key, value in before.items() if finished(disk).get(key) != value} <= {"run/log.txt"}
    assert not [path for path in leftovers(disk.folder) if path.suffix == ".tmp"]
    disk.clear()
    code, text = start(disk, root, name)
    assert code == 0 or "has finished" in text, text
    assert finished(disk) == whole


@pytest.mark.slow
@each_writer
def test_a_disk_that_may_not_be_written_to_is_named(root, disk, name):
    prepare(disk, root)
    before = contents(disk.folder)
    disk.read_only(True)
    code, text = start(disk, root, name)
    disk.read_only(False)
    refusal(code, text, 6)
    assert contents(disk.folder) == before


NOISE = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8)


def write_rows(path: Path) -> None:
    with row_file(path.with_suffix(".csv"), csv_form(["a"], lambda record: [[record["a"]]])) as write:
        for _ in range(1000):
            write({"a": "x" * 400})


@pytest.mark.parametrize("free", [0, 12288])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "x" * 400_000),
        lambda path: write_tensors(path, {"a": torch.zeros(100_000)}),
        lambda path: Manifest("x" * 400_000, (), ()).save(path),
        lambda path: write_state(path.parent, 1, {"a": torch.zeros(100_000)}),
        lambda path: write_clip(path, NOISE, 25),
        write_rows,
    ],
    ids=["text", "tensors", "manifest", "checkpoint", "clip", "rows"],
)
def test_an_error_of_a_full_disk_names_the_file_and_leaves_nothing(disk, write, free):
    disk.leave(free)
    with pytest.raises((OSError, CclError), match=r"No space left|disk is full") as refused:
        write(disk.folder / "file")
    assert str(disk.folder) in str(refused.value)
    assert [path.name for path in disk.folder.iterdir()] == [".ballast"]


@pytest.mark.long
def test_messages_without_room_cost_their_lines_and_results_an_error(root, tmp_path):
    ccl = [sys.executable, "-m", "ccl_cli"]
    with open("/dev/full", "w") as full:
        words = ["train", "--recipe", str(root / "small.yaml"), "--output", str(tmp_path / "run")]
        assert subprocess.run([*ccl, *words], stderr=full, stdout=subprocess.DEVNULL).returncode == 0
        assert subprocess.run([*ccl, "eval", "nothing"], stderr=full, stdout=subprocess.DEVNULL).returncode == 4  # fmt: skip
        done = subprocess.run([*ccl, "recipes", "ls"], stdout=full, stderr=subprocess.PIPE, text=True)
    refusal(done.returncode, done.stderr, 6)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (root / "run/model.safetensors").read_bytes()


READING = {
    "train": "train --recipe small.yaml --output run",
    "eval": "eval model --retrieval",
    "cache build": "cache build --data folder:set --workers 0 --teacher image:small?weights=random",
    "data prepare": "data prepare folder:set --workers 1 --output m.jsonl",
    "data pack": "data pack folder:set --output shards --workers 0",
    "index": "index model set --output library --workers 0",
    "predict": "predict model set --format csv --workers 0",
    "embed": "embed model set --output e.npz --workers 0",
}
HARMS: list[Callable[[Path], object]] = [
    Path.unlink,
    lambda path: os.truncate(path, path.stat().st_size // 2),
    lambda path: os.truncate(path, 0),
    lambda path: (path.unlink(), path.mkdir()),
    lambda path: (path.unlink(), path.symlink_to(path.name)),
    lambda path: (path.unlink(), os.mkfifo(path)),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "train" else pytest.mark.long) for name in READING]
)
@seeds(1, 4)
def test_a_video_that_goes_while_it_is_needed_does_not_stop_the_others(root, tmp_path, name, seed):
    folder, rng = tmp_path / "work", random.Random(f"{name} {seed}")
    shutil.copytree(root / "set", folder / "set")
    shutil.copytree(root / "run", folder / "model", ignore=shutil.ignore_patterns("state"))
    shutil.copy(root / "small.yaml", folder)
    for edited in ("model/recipe.yaml", "model/manifest.jsonl", "small.yaml"):
        text = (folder / edited).read_text().replace(str(root / "set"), str(folder / "set"))
        (folder / edited).write_text(text)
    command = Command(folder, *READING[name].split())
    command.wait(rng.uniform(0, 2))
    rng.choice(HARMS)(rng.choice(sorted((folder / "set").rglob("*.mp4"))))
    code, text = command.end()
    assert "Traceback" not in text, text
    if code:
        refusal(code, text, 4)


def wrong_clock(seed: int, start: float) -> None:
    """A clock that begins in another year and is set back by hours again and again."""
    rng, format_time, now = random.Random(seed), time.strftime, [start]

    def wrong() -> float:
        now[0] += rng.choice([1e-3, 1e-3, 1e-3, -3600.0, -86400.0, 7200.0])
        return now[0]

    time.time, time.time_ns = wrong, lambda: int(wrong() * 1e9)
    time.strftime = lambda form, moment=None: format_time(form, moment or time.gmtime(max(0, wrong())))


@pytest.mark.long
@seeds(1, 3)
def test_a_clock_that_is_wrong_changes_nothing(root, tmp_path, seed):
    rng = random.Random(seed)
    words = ["train", "--recipe", root / "small.yaml", "--output", "run", "--resume", "auto", "--max-steps"]
    for steps in (rng.randrange(1, 6), 0):
        clock = partial(wrong_clock, seed, rng.choice([1e5, 3e8, 1.7e9, 9e9]))
        code, text = Command(tmp_path / "work", *words, steps, first=clock).end()
        assert code == 0, text
        for path in (tmp_path / "work" / "run" / "state").iterdir():
            os.utime(path, (moment := rng.choice([0, 1e9, 5e9]), moment))
    run = tmp_path / "work" / "run"
    assert (run / "model.safetensors").read_bytes() == (root / "run" / "model.safetensors").read_bytes()
    assert json.loads((run / "summary.json").read_text())["seconds"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("moment", [-(2**31), 13_569_465_600])
def test_files_of_other_centuries_are_read_once(root, tmp_path, capsys, moment):
    videos = shutil.copytree(root / "set", tmp_path / "set")
    for path in videos.rglob("*"):
        os.utime(path, (moment, moment))
    words = ["index", str(root / "run"), str(videos), "--output", "library", "--workers", "0", "--json"]
    capsys.readouterr()
    for added in (18, 0):
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["added"] == added
    assert main(["data", "prepare", f"folder:{videos}", "--workers", "1", "--output", "m.jsonl"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "predict {root}/run {loop}",
        "eval {loop}",
        "train --recipe {loop}",
        "data check folder:{loop}",
        "data check manifest:{loop}",
        "data check csv:{loop}",
        "data check shards:{loop}",
        "cache build --data folder:{root}/set --teacher image:small@{loop}.pth",
        "cache build --data folder:{root}/set --teacher audio:precomputed@{loop}",
        "train --recipe {root}/small.yaml --student r2plus1d_tiny@{loop}.pth",
        "train --resume {loop}",
        "report table {loop}",
        "search {root}/set --index {loop}",
    ],
)
def test_a_link_that_leads_to_itself_is_a_sentence(root, tmp_path, capsys, words):
    for name in ("loop", "loop.pth"):
        (tmp_path / name).symlink_to(name)
    code = main(words.format(root=root, loop=tmp_path / "loop").split())
    refusal(code, capsys.readouterr().err, 2, 3, 4, 6)
