"""Disks that fill up, refuse, lose files or tell the wrong time: a sentence, an exit code, and nothing lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import CclError
from ccl_cli.training.checkpoint import save_state
from ccl_cli.utils.files import write_text
from ccl_cli.utils.rows import csv_form, row_file
from ccl_cli.utils.tensor_files import write_tensors
from tests.docs.warm import warm_ccl
from tests.reliability.processes import OBEY, Ccl, Disk, Ended, check_refusal, contents, small_disk
from tests.web import Server, serving

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
        ccl.right("index", made.videos, "--output", root / "library", "--model", made.run, "--workers", "0")
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
    "data pack": ("data pack folder:{videos} --output {disk}/out --workers 0 --shard-size 1", {}),
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
    shutil.copytree(
        world.run,
        disk.folder / "run",
        ignore=shutil.ignore_patterns("state", "predictions-*", "correspondence-*"),
    )
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


def half_written(files: dict[str, str], *valid: dict[str, str]) -> list[str]:
    """Files that pass for a result and are none: neither of before nor of the whole command."""
    parts = (".partial.", ".building/", "-wal", "-shm", "-journal", ".part")
    results = [name for name in lasting(files) if not any(part in name for part in parts)]
    return [
        name
        for name in results
        if any(name in each for each in valid) and files[name] not in [each.get(name) for each in valid]
    ]


def each(*quick: str) -> pytest.MarkDecorator:
    """All commands; those beside ``quick`` only in the long part."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in quick else pytest.mark.long) for name in COMMANDS]
    )


def row(what: str, name: str) -> str:
    """A row of the table."""
    return f"{what}: `ccl {name.partition(' .')[0]}`"


def again(name: str, arguments: list[str]) -> list[str]:
    """How a user goes on with a command that has failed."""
    return [*arguments, "--resume", "auto"] if name == "train" else arguments


@each("train", "predict --output")
@pytest.mark.slow
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
        steps = trials(1, 2 if name in ("bench", "export") else 4)
        for number in steps:
            free = 4096 * int(need * (number + rng.random()) / len(steps) / 4096)
            with tally.trial(row("disk full", name), f"{free} of {need} bytes free"):
                empty(world, disk)
                disk.leave(free)
                ended = world.ccl(*arguments, **environment)
                now = contents(disk.folder)
                if ended.code:
                    check_refusal(ended, 6, *([1] if name == "bench" else []))
                    assert lasting(before).items() <= lasting(now).items() or name == "eval"
                    assert not half_written(now, before, whole)
                assert not [left for left in now if left.endswith(".tmp")]
                disk.clear()
                world.ccl.right(*again(name, arguments), **environment)
                assert lasting(contents(disk.folder)) == lasting(whole)


@each("report table", "card")
@pytest.mark.slow
def test_a_place_that_may_not_be_written_to_is_named(world, tally, name, tmp_path):
    """A read-only disk, and a folder without permission: nothing changes, and afterwards it works."""
    for what in ("read-only disk", "no permission"):
        place = tmp_path / what.replace(" ", "-")
        with small_disk(place) as disk, tally.trial(row(what, name)):
            empty(world, disk)
            arguments, environment = words(world, name, disk.folder)
            before = contents(disk.folder)
            if what == "read-only disk":
                disk.read_only(True)
                ended = world.ccl(*arguments, **environment)
                disk.read_only(False)
            else:
                for folder in (disk.folder, disk.folder / "run"):
                    folder.chmod(0o555)
                ended = world.ccl(*arguments, first=OBEY, **environment)
                for folder in (disk.folder, disk.folder / "run"):
                    folder.chmod(0o755)
            check_refusal(ended, 6)
            assert contents(disk.folder) == before
            world.ccl.right(*again(name, arguments), **environment)


# Lets `ccl teachers pull audio:cnn14` ask a server of ours.
PULLED = """
from ccl_cli.teachers.weights import WeightFile
from ccl_plugins.cnn14 import Cnn14
Cnn14.weight_files = classmethod(lambda cls, spec: (WeightFile("w.pth", "{address}/w.pth", "{checksum}"),))
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_download_that_finds_no_room_goes_on_later(world, tally, trials, tmp_path):
    """What has arrived stays, and once there is room only the rest is asked for; where it may not be written too."""
    content = np.random.default_rng(0).bytes(500_000)
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with small_disk(tmp_path / "disk") as disk, serving(Server(pages={"/w.pth": content})) as server:
        home = disk.folder / "home"
        first = PULLED.format(address=server.address, checksum=checksum)
        environment = {"CCL_HOME": home, "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": 0}
        command = ("teachers", "pull", "audio:cnn14")

        def pulled() -> None:
            world.ccl.right(*command, first=first, **environment)
            assert (home / "weights" / "w.pth").read_bytes() == content
            assert [path.name for path in (home / "weights").iterdir()] == ["w.pth"]
            shutil.rmtree(home)

        for number in trials(1, 8):
            free = random.Random(number).randrange(0, len(content), 4096)
            with tally.trial(row("disk full", "teachers pull"), f"{free} bytes free"):
                disk.leave(free)
                check_refusal(world.ccl(*command, first=first, **environment), 6)
                disk.clear()
                server.asked.clear()
                pulled()
                assert free < 16384 or server.asked[0][1], "it was sent again from the start"
        with tally.trial(row("read-only disk", "teachers pull")):
            disk.read_only(True)
            check_refusal(world.ccl(*command, first=first, **environment), 6)
            disk.read_only(False)
            pulled()
        with tally.trial(row("no permission", "teachers pull")):
            disk.folder.chmod(0o555)
            check_refusal(world.ccl(*command, first=OBEY + first, **environment), 6)
            disk.folder.chmod(0o755)
            pulled()


READING = {
    "train": ("train", "--recipe", "{recipe}", "--set", "train.epochs=4", "--output", "{out}/run"),
    "eval": ("eval", "{out}/model", "--retrieval"),
    "cache build": ("cache", "build", "--data", "folder:{videos}", "--workers", "0", *TEACHER),
    "data prepare": ("data", "prepare", "folder:{videos}", "--workers", "1", "--output", "{out}/m.jsonl"),
    "data pack": ("data", "pack", "folder:{videos}", "--output", "{out}/shards", "--workers", "0"),
    "index": ("index", "{videos}", "--output", "{out}/library", "--model", "{run}", "--workers", "0"),
    "predict": ("predict", "{videos}", "--csv", "--model", "{run}", "--workers", "0"),
    "embed": ("embed", "{videos}", "--output", "{out}/e.npz", "--model", "{run}", "--workers", "0"),
}
HARMS = {
    "removed": lambda path, other: path.unlink(),
    "replaced": lambda path, other: other.replace(path),
    "cut off": lambda path, other: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path, other: os.truncate(path, 0),
    "made a folder": lambda path, other: (path.unlink(), path.mkdir()),
    "made a loop": lambda path, other: (path.unlink(), path.symlink_to(path.name)),
    "made a pipe": lambda path, other: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "train" else pytest.mark.long) for name in READING]
)
def test_a_video_that_goes_while_it_is_needed(world, tally, trials, name, tmp_path):
    """Removed, replaced, cut off or turned into something else at a random moment: the others are done."""
    began = time.monotonic()
    world.ccl("predict", world.videos, "--model", world.run, "--workers", "0")
    usual = time.monotonic() - began
    for number in trials(1, 4):
        rng = random.Random(f"{name} {number}")
        out, videos = tmp_path / str(number), tmp_path / str(number) / "set"
        out.mkdir()
        shutil.copytree(world.videos, videos)
        shutil.copytree(world.run, out / "model", ignore=shutil.ignore_patterns("state"))
        for file in (out / "model" / "recipe.yaml", out / "model" / "manifest.jsonl"):
            file.write_text(file.read_text().replace(str(world.videos), str(videos)))
        (out / "small.yaml").write_text(world.recipe.read_text().replace(str(world.videos), str(videos)))
        places = {"recipe": out / "small.yaml", "videos": videos, "run": world.run, "out": out}
        harm, wait = rng.choice(list(HARMS)), usual * rng.random()
        with tally.trial(row("video lost while it is read", name), f"{number}: {harm} after {wait:.2f} s"):
            process = world.ccl.start(
                *(word.format(**places) for word in READING[name]), CCL_HOME=out / "home"
            )
            try:
                time.sleep(wait)
                victim, other = rng.sample(sorted(videos.rglob("*.mp4")), 2)
                HARMS[harm](victim, Path(shutil.copy(other, out / "other.mp4")))
                _, err = process.communicate(timeout=240)
            finally:
                process.kill()
            ended = Ended(process.returncode, "", err)
            if ended.code:
                check_refusal(ended, 4)
            assert "Traceback" not in err
            if name == "train":
                summary = json.loads((out / "run" / "summary.json").read_text())
                assert summary["finished"]


# ---- clocks

# The clock of one process: set back by hours again and again, before 1980, or far ahead.
CLOCK = """
import random, time
rng, real, strftime, now = random.Random({seed}), time.time, time.strftime, [{start}]
def told():
    now[0] += rng.choice([1e-3, 1e-3, 1e-3, -3600.0, -86400.0, 7200.0])
    return now[0]
time.time = told
time.time_ns = lambda: int(told() * 1e9)
time.strftime = lambda form, moment=None: strftime(form, moment or time.gmtime(max(0, told())))
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_clock_that_is_wrong_changes_nothing(world, tally, trials, tmp_path):
    """Stopped in the middle and gone on with, in other years each time: the same bytes, and no time below zero."""
    whole = (world.run / "model.safetensors").read_bytes()
    for number in trials(1, 3):
        rng = random.Random(number)
        starts = [rng.choice([1e5, 3e8, 1.7e9, 4e9, 9e9]) for _ in range(2)]
        with tally.trial(
            "clock set back in a run, between stop and resume, or years off", f"{number}: {starts}"
        ):
            runs = {"CCL_RUNS": tmp_path / f"runs-{number}"}
            step = rng.randrange(1, 6)
            command = ("train", "--recipe", world.recipe, "--resume", "auto")
            world.ccl.right(
                *command, "--max-steps", step, first=CLOCK.format(seed=number, start=starts[0]), **runs
            )
            for state in runs["CCL_RUNS"].rglob("*.pt"):
                os.utime(state, (moment := rng.choice([0, 1e9, 5e9]), moment))
            world.ccl.right(
                *command, "--max-steps", 0, first=CLOCK.format(seed=number, start=starts[1]), **runs
            )
            (run,) = runs["CCL_RUNS"].glob("*/*")
            assert (run / "model.safetensors").read_bytes() == whole
            assert json.loads((run / "summary.json").read_text())["seconds"] >= 0
            world.ccl.right("eval", first=CLOCK.format(seed=number, start=1e5), **runs)
            world.ccl.right("report", "table", first=CLOCK.format(seed=number, start=1e5), **runs)


MOMENTS = {"1901": -(2**31), "1970": 0, "2106": 2**32, "2400": 13_569_465_600}


@pytest.mark.slow
@pytest.mark.parametrize(
    "year", [pytest.param(y, marks=() if y == "2400" else pytest.mark.long) for y in MOMENTS]
)
def test_files_of_other_centuries(world, tally, tmp_path, year):
    """Times of change long past or to come: looked at once, and not again."""
    videos = shutil.copytree(world.videos, tmp_path / "set")
    for path in videos.rglob("*"):
        os.utime(path, (MOMENTS[year], MOMENTS[year]))
    commands = {
        "index": (
            "index",
            videos,
            "--output",
            tmp_path / "library",
            "--model",
            world.run,
            "--workers",
            "0",
            "--json",
        ),
        "data prepare": (
            "data",
            "prepare",
            f"folder:{videos}",
            "--workers",
            "1",
            "--output",
            tmp_path / "m.jsonl",
        ),
        "predict": ("predict", videos, "--model", world.run, "--workers", "0"),
    }
    for name, command in commands.items():
        for turn in ("first", "again"):
            with tally.trial("files that changed in the years 1901 to 2400", f"{name} {year} {turn}"):
                ended = world.ccl.right(*command, CCL_HOME=tmp_path / "home")
                if name == "index":
                    assert json.loads(ended.out)["added"] == (18 if turn == "first" else 0)


# ---- links


@pytest.mark.slow
@pytest.mark.long
def test_links_that_lead_in_circles_or_nowhere(world, tally, tmp_path):
    """Among the videos, the runs and the caches, and as what a command is given."""
    videos, runs, home = tmp_path / "set", tmp_path / "runs", tmp_path / "home"
    shutil.copytree(world.videos, videos)
    shutil.copytree(world.run, runs / "small" / "a")
    for folder in (
        videos,
        videos / "train",
        videos / "train" / "down",
        runs,
        runs / "small",
        home / "embeddings",
    ):
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "up").symlink_to(folder.parent) if folder not in (videos, videos / "train") else None
        (folder / "self.mp4").symlink_to("self.mp4")
        (folder / "nowhere.mp4").symlink_to("absent.mp4")
    (runs / "small" / "b").mkdir()
    (runs / "small" / "b" / "recipe.yaml").symlink_to("recipe.yaml")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "self.pth").symlink_to("self.pth")
    environment = {"CCL_RUNS": runs, "CCL_HOME": home}
    fine = {
        "train": (
            "train",
            "--recipe",
            world.recipe,
            "--data",
            f"folder:{videos}",
            "--max-steps",
            "1",
            "--set",
            "max_unreadable=0.5",
        ),
        "train --resume auto": ("train", "--recipe", world.recipe, "--resume", "auto"),
        "report table": ("report", "table", runs),
        "report of the newest": ("report", "table"),
        "cache ls": ("cache", "ls"),
        "card": ("card", "--output", "-"),
    }
    for name, command in fine.items():
        with tally.trial("links in circles and to nowhere, in folders", name):
            world.ccl.right(*command, **environment)
    passed_over = {
        "predict": ("predict", videos, "--model", world.run, "--workers", "0"),
        "index": ("index", videos, "--output", tmp_path / "library", "--model", world.run, "--workers", "0"),
    }
    for name, command in passed_over.items():
        with tally.trial("links in circles and to nowhere, in folders", name):
            check_refusal(world.ccl(*command, **environment), 4)
    loop = tmp_path / "self"
    named = {
        "predict": ("predict", loop, "--model", world.run),
        "model": ("predict", videos, "--model", loop),
        "eval": ("eval", loop),
        "recipe": ("train", "--recipe", f"{loop}"),
        "data": ("data", "stats", f"folder:{loop}"),
        "manifest": ("data", "stats", f"manifest:{loop}"),
        "csv": ("data", "stats", f"csv:{loop}"),
        "shards": ("data", "stats", f"shards:{loop}"),
        "teacher": (
            "cache",
            "build",
            "--data",
            f"folder:{world.videos}",
            "--teacher",
            f"image:small@{loop}.pth",
        ),
        "table": (
            "cache",
            "build",
            "--data",
            f"folder:{world.videos}",
            "--teacher",
            f"audio:precomputed@{loop}",
        ),
        "student": ("train", "--recipe", world.recipe, "--student", f"r2plus1d_tiny@{loop}.pth"),
        "resume": ("train", "--resume", loop),
        "report": ("report", "table", loop),
        "library": ("search", videos, "--index", loop),
    }
    for name, command in named.items():
        with tally.trial("a link that leads to itself, given to a command", name):
            check_refusal(world.ccl(*command, **environment), 2, 3, 4, 6)


# ---- where messages go


@pytest.mark.slow
@pytest.mark.long
def test_messages_may_have_no_room(world, tally, tmp_path):
    """Results to a full disk are an error; a log that has no room costs its lines alone."""
    with open("/dev/full", "w") as full:
        for name, words_, code in (
            ("train", ("train", "--recipe", world.recipe, "--output", tmp_path / "run"), 0),
            ("eval of nothing", ("eval", tmp_path / "nothing"), 4),
            ("a bad option", ("eval", "--nothing"), 2),
        ):
            with tally.trial("stderr on a full disk", name):
                assert (
                    world.ccl.start(*words_, stdout=subprocess.DEVNULL, stderr=full).wait(timeout=240) == code
                )
        for name, words_ in {
            "recipes ls": ("recipes", "ls"),
            "predict": ("predict", world.videos, "--csv", "--model", world.run, "--workers", "0"),
        }.items():
            with tally.trial("stdout on a full disk", name):
                process = world.ccl.start(*words_, stdout=full)
                _, err = process.communicate(timeout=240)
                check_refusal(Ended(process.returncode, "", err), 6)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (
        world.run / "model.safetensors"
    ).read_bytes()


# ---- in this process


def test_what_cannot_be_written_says_where(tally, tmp_path):
    """Every way in which ccl writes a file, on a disk that is full: the error names it, and nothing is left."""
    tensors = {"a": torch.zeros(100_000)}
    ways = {
        "text": lambda path: write_text(path, "x" * 400_000),
        "tensors": lambda path: write_tensors(path, tensors),
        "manifest": lambda path: Manifest("x" * 400_000, (), ()).save(path),
        "checkpoint": lambda path: save_state(path.parent, 1, tensors),
        "records": lambda path: _records(path.with_suffix(".csv")),
        "clip": lambda path: write_clip(
            path, np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8), 25
        ),
    }
    with small_disk(tmp_path / "disk") as disk:
        for name, write in ways.items():
            for free in (0, 4096, 12288):
                with tally.trial("each way of writing a file, on a full disk", f"{name}, {free} bytes free"):
                    disk.leave(free)
                    with pytest.raises((OSError, CclError)) as refused:
                        write(disk.folder / "file")
                    assert str(disk.folder) in str(refused.value)
                    assert "No space left" in str(refused.value) or "disk is full" in str(refused.value)
                    assert [path.name for path in disk.folder.iterdir()] == [".ballast"]


def _records(path: Path) -> None:
    with row_file(path, csv_form(["a"], lambda record: [[record["a"]]])) as rows:
        for _ in range(1000):
            rows.add({"a": "x" * 400})
