from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from ccl_cli.__main__ import main
from ccl_cli.utils import console


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _logging_as_before():
    yield
    console._asked = console._Asked()
    logger = logging.getLogger("ccl")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def ccl(capsys):
    """Run a command in this process."""

    def run(*arguments: str) -> Result:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "ccl_cli", *arguments]
    env = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
