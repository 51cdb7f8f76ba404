"""Every command of the documentation, in the order of its page: read by the real parser, and run.

A page's commands are run in a folder of its own with small files under the names that the page uses. What cannot
be run there as it stands is in the tables below.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ccl_cli.cli.app import app
from tests.docs import things
from tests.docs.pages import PAGES, blocks, calls, commands, every_command, name
from tests.helpers.web import Server, serving

SMALL = "--set student=r2plus1d_tiny --set clip.frames=4 --set clip.size=32 --set train.workers=0"
EMBEDDINGS = "--teacher audio:precomputed@audio.npz --teacher image:precomputed@image.npz"
CLIPS = "--workers 0 --epochs 1 --teacher 'image:small?weights=random' --data 'clips?per_class=3&size=36&seconds=1'"
CELL = f"--name small --method baseline --setup AI --seeds 1 --epochs 1 {SMALL}"

# By a pattern, why a command is only read by the parser.
NOT_RUN = {
    r"^(python3 -m venv|source|pip install)": "the environment is there already",
    r"^(ray start|torchrun|accelerate)": "starts several processes; tests/utils and tests/executors do",
    r"^ccl demo": "takes minutes; tests/test_demo.py",
    r"^ccl train --recipe (ucf51|activitynet|vggsound)": "tests/config/test_builtin_recipes.py takes two steps",
    r"^ccl cache build --recipe mine.yaml": "mine.yaml names no teacher",
}
# What is changed in the commands that take too long, or need a server, a cluster or GPUs; in this order.
CHANGES = {
    r"^ccl train --recipe mine\.yaml( --epochs 60.*)?$": rf"\g<0> {EMBEDDINGS} {SMALL} --epochs 1",
    r"^CCL_RECIPE=mine.yaml ccl train.*": rf"\g<0> {EMBEDDINGS} {SMALL} --epochs 1",
    r"^CCL_RECIPE=mine.yaml ccl data bench$": rf"\g<0> --seconds 0.2 {EMBEDDINGS} {SMALL}",
    r"^ccl data bench folder:my_videos$": rf"env -u CCL_RECIPE \g<0> --seconds 0.2 {SMALL}",
    r"^ccl train --recipe smoke --data clips:my_videos$": "rm -r my_videos && ccl train --recipe smoke "
    "--workers 0 --epochs 1 --data 'clips:my_videos?per_class=3&size=36&seconds=0.5'",
    r"^ccl train --recipe smoke(?! --w).*?(?= &&|$)": rf"\g<0> {CLIPS}",
    r"^ccl train.*(--data ucf51|manifest:ucf51.jsonl --teacher audio:cnn14)$": r"\g<0> --batch-size 4 --max-steps 1",
    # CNN14 hears ten seconds of every clip in every epoch.
    r"^(ccl train) --teacher audio:cnn14 (.*folder:my_videos\?test=0.25'(?!.*dry-run).*)": (
        r"\1 --teacher 'audio:small?weights=random' \2 --epochs 1"
    ),
    r"--epochs (30|60)": "--epochs 1",
    r"r2plus1d_18": "r2plus1d_tiny",
    r"^(ccl .*) --num-processes 2$": r"\1",
    r"--executor slurm": "--executor local",
    r"https://example.org": "$CCL_PAGE_SERVER",
    r"^ccl bench ucf51-bench --data manifest:ucf51.jsonl$": rf"\g<0> {CELL}",
    r"^ccl bench ucf51-bench(?!.*(--dry-run|--name small)).*": r"\g<0> --dry-run",
    r"^ccl teachers pull": r"CCL_HOME=none \g<0>",
}
# By a pattern, the exit code of a command that fails here, and what it prints.
FAILS = {r"teachers pull": (6, "was not downloaded"), r"s3://": (6, "pip install 'ccl-cli[remote]'")}
# Pages whose commands test_plugin_pages.py runs.
FOLLOWED = {"write_a_teacher.md", "write_a_method.md", "add_a_data_set.md", "hub_teachers.md"}


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


def test_the_reader_finds_every_call_and_refuses_what_ccl_refuses():
    line = "A=1 ccl train --data 'x?a=1&b=2' > f && srun torchrun -n 2 -m ccl_cli eval | head # ccl x"
    assert calls(line) == [["train", "--data", "x?a=1&b=2"], ["eval"]]
    for words in (["trian"], ["train", "--epoch"], ["data", "pack", "x"], ["eval", "--k", "1"]):
        with pytest.raises(pytest.fail.Exception):
            read(words, "")


@pytest.mark.parametrize("pattern", [*NOT_RUN, *CHANGES, *FAILS])
def test_every_exception_is_needed(pattern):
    typed = [command for page in PAGES for command in every_command(page)]
    assert any(re.search(pattern, command) for command in typed)


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
    if any(re.search(pattern, command) for pattern in NOT_RUN):
        return
    line = command
    for pattern, replacement in CHANGES.items():
        line = re.sub(pattern, replacement, line)
    line = re.sub(r"(?<=[\s:])/data/", f"{sandbox}/data/", line)  # a reader's /data is the sandbox's
    shell = ["bash", "-euo", "pipefail", "-c", line]
    done = subprocess.run(shell, cwd=sandbox, env=environment, capture_output=True, text=True, timeout=300)
    said = f"{line}\nexit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    code, words = next((FAILS[pattern] for pattern in FAILS if re.search(pattern, command)), (0, ""))
    assert done.returncode == code, said
    assert words in done.stdout + done.stderr, said
    assert "Traceback" not in done.stderr, said


def _started(script: str) -> list[str]:
    """A script's lines that start ccl, without a quote that began or ends on another line."""
    lines = [line.strip().strip("'") for line in script.splitlines()]
    return [line for line in lines if re.search(r"\bccl (train|eval)\b", line)]
