"""Every command of the documentation, in the order of its page: read by the real parser, and run.

A page's commands are run in a folder of its own with small files under the names that the page uses. What cannot
be run there as it stands is in one table, with the reason and what is run in its place.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from ccl_cli.cli.app import app
from tests.docs import things
from tests.docs.pages import PAGES, blocks, calls, commands, every_command, name
from tests.helpers.web import Server, serving

LONG = "takes minutes or hours"
FETCH = "fetches published weights"
SMALL = "--set student=r2plus1d_tiny --set clip.frames=4 --set clip.size=32 --set train.workers=0"
EMBEDDINGS = "--teacher audio:precomputed@audio.npz --teacher image:precomputed@image.npz"
BOTH = "ccl train --teacher audio:cnn14 --teacher image:resnet34"
LIGHT = BOTH.replace("audio:cnn14", "'audio:small?weights=random'")
TEACHERS = "--teacher audio:cnn14 --teacher image:resnet34"
FEATURES = "ccl train --method unic"
TUNE = "ccl train --method baseline --student r2plus1d_18@runs/features --data 'folder:my_videos?test=0.25'"
SCORED = "--set holdout=0.2 --set train.eval_every=1 --set train.keep=best"
CLIPS = "--workers 0 --epochs 1 --data 'clips?per_class=3&size=36&seconds=1'"
CELL = f"--name small --method baseline --setup AI --seeds 1 --epochs 1 {SMALL}"


class Instead(NamedTuple):
    """What is run in place of a command.

    Attributes:
        why: The command is not run as it stands.
        run: The command with ``{}`` for what is written; nothing: its words are read by the parser only.
        code: How it ends.
        says: What it prints on its way there.
    """

    why: str
    run: str = ""
    code: int = 0
    says: str = ""


TABLE: dict[str, Instead] = {
    # Setting up
    "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt . && .venv/bin/ccl demo": Instead(
        LONG
    ),
    "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[dev]' && .venv/bin/python -m pytest -n 2 -m \"not slow\"": Instead(
        "these are the tests"
    ),
    "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt .": Instead(LONG),
    "source .venv/bin/activate": Instead("the environment is there already"),
    # Weights
    "ccl teachers pull audio:cnn14": Instead(FETCH, "CCL_HOME=none {}", 6, "zenodo.org"),
    "ccl teachers pull 'audio:cnn14?dim=2048'": Instead(
        FETCH, "CCL_HOME=none {}", 6, "Cnn14_mAP=0.431.pth was not downloaded"
    ),
    "ccl teachers pull image:resnet34": Instead(
        FETCH, "CCL_HOME=none {}", 6, "resnet34-b627a593.pth was not downloaded"
    ),
    # The demo and the study
    "ccl demo": Instead(LONG),
    "ccl demo --seeds 8": Instead(LONG),
    "ccl demo --correspondence 0": Instead(LONG),
    "ccl demo --full": Instead(LONG),
    "ccl train --recipe smoke": Instead("takes a minute", f"{{}} {CLIPS}"),
    **dict.fromkeys(
        (
            "ccl train --recipe smoke --set clip.stride=2 --set eval.clips=2 --set eval.crops=3",
            "ccl train --recipe smoke --set clip.sampling=segments",
            "ccl train --recipe smoke --set train.ema=0.9",
            "ccl train --recipe smoke --set holdout=0.25 --set train.eval_every=1 --set train.keep=best",
        ),
        Instead("takes a minute", f"{{}} {CLIPS} --teacher 'image:small?weights=random'"),
    ),
    "ccl train --recipe smoke && ccl eval": Instead(
        "takes a minute", f"ccl train --recipe smoke {CLIPS} && ccl eval"
    ),
    "ccl train --recipe smoke --data clips:my_videos": Instead(
        "my_videos is there already, and a minute",
        "rm -r my_videos && ccl train --recipe smoke --workers 0 --epochs 1 "
        "--data 'clips:my_videos?per_class=3&size=36&seconds=0.5'",
    ),
    # CNN14 hears ten seconds of every clip in every epoch.
    f"{BOTH} --data 'folder:my_videos?test=0.25' --epochs 30": Instead(LONG, "{} --epochs 1"),
    # The page has trained with CNN14 before, or another page does.
    **{
        f"{BOTH} --data 'folder:my_videos?test=0.25'{more}": Instead(
            LONG, f"{LIGHT} --data 'folder:my_videos?test=0.25'{more} --epochs 1"
        )
        for more in (
            "",
            " --epochs 30 --seed 7 --name final",
            f" --epochs 30 {SCORED} --output runs/choice/teachers-0",
        )
    },
    f"ccl train --method baseline --data 'folder:my_videos?test=0.25' --epochs 30 {SCORED} --output runs/choice/baseline-0": Instead(
        LONG, "{} --epochs 1"
    ),
    f"{BOTH} --data ucf51": Instead(LONG, "{} --batch-size 4 --max-steps 1"),
    "ccl train --data manifest:ucf51.jsonl --teacher audio:cnn14": Instead(
        LONG, "{} --batch-size 4 --max-steps 1"
    ),
    # R(2+1)D-18 at the paper's size, for hours.
    "ccl train --recipe mine.yaml": Instead(LONG, f"{{}} {EMBEDDINGS} {SMALL} --epochs 1"),
    "ccl train --recipe mine.yaml --epochs 60 --set method.ccl.temperature.audio=0.5": Instead(
        LONG, f"{{}} {EMBEDDINGS} {SMALL} --epochs 1"
    ),
    "CCL_RECIPE=mine.yaml ccl train --seed 1": Instead(LONG, f"{{}} {EMBEDDINGS} {SMALL} --epochs 1"),
    **dict.fromkeys(
        (
            "ccl train --recipe ucf51 --method crd",
            "ccl train --recipe activitynet --method baseline",
            "ccl train --recipe vggsound --teacher audio:cnn14",
            "ccl train --recipe ucf51 --set method.ccl.composition=false",
            "ccl train --recipe ucf51-official --teacher audio:cnn14",
            "ccl train --recipe ucf51-official --data activitynet --batch-size 64",
            "ccl train --recipe ucf51 --method fitnet --set method.fitnet.regressor=mlp_bn --set method.fitnet.loss=logsum",
            "ccl train --recipe ucf51 --set standardize=zscore",
            "ccl train --recipe ucf51 --set cache.use=build --set standardize=phi_s",
        ),
        Instead(LONG),  # tests/config/test_builtin_recipes.py takes two steps of each
    ),
    "ccl bench ucf51-bench --data manifest:ucf51.jsonl": Instead(LONG, f"{{}} {CELL}"),
    "ccl bench ucf51-bench --tune": Instead(LONG, "{} --dry-run"),
    "ccl bench ucf51-bench --method ccl --method baseline --setup AI --seeds 8": Instead(
        LONG, "{} --dry-run"
    ),
    "ccl bench ucf51-bench --executor slurm": Instead("a cluster", "{} --dry-run"),
    **dict.fromkeys(
        ("pip install 'ccl-cli[ray]'", "ray start --head --port 6379", "ray start --address 10.0.0.1:6379"),
        Instead("installs Ray and starts a cluster"),
    ),
    "ccl bench ucf51-bench --executor ray": Instead("Ray may not be installed", "{} --dry-run"),
    "ccl data check folder:my_videos --executor slurm": Instead(
        "a cluster", "ccl data check folder:my_videos"
    ),
    "ccl cache build --recipe mine.yaml --executor slurm": Instead("a cluster"),
    **{
        f"ccl {words} --executor slurm": Instead("a cluster", f"ccl {words} --executor local")
        for words in (
            "data pack folder:my_videos --output packed",
            "predict my_videos --output classes.csv",
            "embed my_videos --output features.npz",
            "index my_videos --output library",
        )
    },
    "ccl cache build --recipe mine.yaml --part 2/4": Instead("mine.yaml names no teacher"),
    "ccl bench ucf51-bench --part 2/4": Instead(LONG, "{} --dry-run"),
    "ccl bench ucf51-bench --jobs 8": Instead("eight GPUs", "{} --dry-run"),
    "ccl data bench folder:my_videos": Instead(
        "measures for half a minute", f"env -u CCL_RECIPE {{}} --seconds 0.2 {SMALL}"
    ),
    "CCL_RECIPE=mine.yaml ccl data bench": Instead(
        "measures for half a minute", f"{{}} --seconds 0.2 {EMBEDDINGS} {SMALL}"
    ),
    # R(2+1)D-18 is slow here, and so is a whole run of CNN14.
    **{
        command: Instead(LONG, command.replace("r2plus1d_18", "r2plus1d_tiny"))
        for command in (
            f"{FEATURES} --student r2plus1d_18 {TEACHERS} --data 'folder:my_videos?labels=none' --output runs/features",
            f"{TUNE} --output runs/tuned",
            f"{TUNE} --set labels_per_class=2",
        )
    },
    # Servers
    "ccl train --recipe mine.yaml --data shards:https://example.org/packed": Instead(
        "there is no such server", "ccl train --recipe mine.yaml --data shards:$CCL_PAGE_SERVER/packed"
    ),
    "ccl train --recipe mine.yaml --data shards:s3://bucket/packed": Instead(
        "there is no such bucket", "{}", 6, "pip install 'ccl-cli[remote]'"
    ),
    # Several processes import everything anew; tests/utils/test_launch.py and tests/utils/test_distributed.py have them train.
    "torchrun --nproc_per_node 2 -m ccl_cli train --recipe mine.yaml": Instead("starts two processes"),
    "accelerate launch --num_processes 2 -m ccl_cli train --recipe mine.yaml": Instead("two GPUs"),
    "ccl train --recipe mine.yaml --num-processes 2": Instead("two GPUs", "ccl train --recipe mine.yaml"),
    "ccl eval --num-processes 2": Instead("two GPUs", "ccl eval"),
    "ccl predict my_videos --output classes.csv --num-processes 2": Instead(
        "two GPUs", "ccl predict my_videos --output classes.csv"
    ),
}


FOLLOWED = {
    "write_a_teacher.md",
    "write_a_method.md",
    "add_a_data_set.md",
    "hub_teachers.md",
}  # by test_plugin_pages.py


# ---- read


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_is_one_that_ccl_knows(page):
    for command in every_command(page):
        for arguments in calls(command):
            read(arguments, command)
    for block in blocks(page):
        if block.language == "bash" and block.title:
            for line in _started(block.text):
                for arguments in calls(line):
                    read(arguments, block.text)


def read(arguments: list[str], command: str) -> None:
    """Let the real parser read what follows ``ccl``; nothing is run."""
    parser, path, context = typer.main.get_command(app), "ccl", None
    while True:
        try:
            context = parser.make_context(path, list(arguments), parent=context)
            rest = [*context._protected_args, *context.args]
            if not hasattr(parser, "resolve_command") or not rest:
                return
            path, parser, arguments = parser.resolve_command(context, rest)
        except typer.Exit:  # --help, --version
            return
        except typer.TyperException as error:
            pytest.fail(f"{command}\n{error.format_message()}")


@pytest.mark.parametrize(
    "words", [["trian"], ["train", "--epoch"], ["data", "pack", "x"], ["data", "pakc"], ["eval", "--k", "1"]]
)
def test_the_reader_refuses_what_ccl_refuses(words):
    with pytest.raises(pytest.fail.Exception):
        read(words, "")


def test_the_reader_finds_every_call():
    line = "A=1 ccl train --data 'x?a=1&b=2' > f && srun torchrun -n 2 -m ccl_cli eval | head # ccl x"
    assert calls(line) == [["train", "--data", "x?a=1&b=2"], ["eval"]]


def test_the_table_lists_only_what_the_pages_say():
    said = {command for page in PAGES for command in every_command(page)}
    assert sorted(set(TABLE) - said) == []


# ---- run


@pytest.fixture(scope="session")
def world(programs, tmp_path_factory) -> Path:
    """A folder with ``things`` for every page, ``weights``, and the programs in ``warm/bin``."""
    root = tmp_path_factory.mktemp("docs")
    (root / "things").mkdir()
    things.make(root / "things")
    things.weights(root / "home" / "weights")
    (root / "home" / "converted").mkdir()
    (root / "warm").symlink_to(programs.parent)
    things.programs(programs)
    _run("ccl bench ucf51-bench.yaml", root / "things", _environment(root, root / "first", ""))
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if every_command(page) and page.name not in FOLLOWED], ids=name
)
def test_every_command_runs(page, world, tmp_path):
    sandbox = tmp_path / "here"
    things.copy(world / "things", sandbox)
    with serving(Server(root=sandbox)) as server:
        environment = _environment(world, tmp_path / "home", server.address)
        for block in blocks(page):
            if block.title:
                (sandbox / block.title).write_text(block.text)
            else:
                for command in commands(block):
                    _run(command, sandbox, environment)


def _environment(world: Path, home: Path, url: str) -> dict[str, str]:
    home.mkdir()
    for folder in ("weights", "converted"):
        (home / folder).symlink_to(world / "home" / folder)
    return {
        **os.environ,
        "PATH": f"{world / 'warm' / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CCL_HOME": str(home),
        "CCL_RECIPE": "short.yaml",
        "CCL_OFFLINE": "1",
        "CCL_PAGE_SERVER": url,
        "COLUMNS": "100",
    }


def _run(command: str, sandbox: Path, environment: dict[str, str]) -> None:
    instead = TABLE.get(command, Instead("", "{}"))
    if not instead.run:
        return
    # A reader's /data is the sandbox's.
    line = re.sub(r"(?<=[\s:])/data/", f"{sandbox}/data/", instead.run.replace("{}", command))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=sandbox,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = f"{line}\nexit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == instead.code, said
    assert instead.says in done.stdout + done.stderr, said
    assert "Traceback" not in done.stderr, said


def _started(script: str) -> list[str]:
    """A script's lines that start ccl, without a quote that began or ends on another line."""
    lines = [line.strip().strip("'") for line in script.splitlines()]
    return [line for line in lines if re.search(r"\bccl (train|eval)\b", line)]
