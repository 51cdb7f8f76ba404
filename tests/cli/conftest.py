from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ccl_cli.__main__ import main
from ccl_cli.cli import app


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _logging(logging_as_before):
    """Commands configure the logger."""


@pytest.fixture
def ccl(capsys):
    """Run a command in this process."""

    def run(*arguments: str) -> Result:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def videos(clips_folder, tmp_path):
    """Six videos in folders named after their classes."""
    return shutil.copytree(clips_folder / "set" / "test", tmp_path / "videos")


def table(out: str) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in out.splitlines()]


def every_command() -> Iterator[tuple[str, ...]]:
    """The words of every command and group."""
    yield ()
    for name in app.OWN:
        yield (name,)
        yield from ((name, inner) for inner in getattr(app._real(name), "commands", ()))


def spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "ccl_cli", *arguments]
    env = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
