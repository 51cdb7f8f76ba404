"""The page about the Python interface, run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ccl_cli
from ccl_cli.data.sources.clips import load as clips
from tests.docs.pages import DOCS, blocks

PAGE = DOCS / "python.md"
SMALL = {"per_class": 6, "size": 36, "seconds": 1.0}


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_HOME", str(tmp_path / "cache"))
    for video in clips("", **SMALL).split("test")[:6]:
        target = tmp_path / "my_videos" / video.id.split("/")[1] / f"{Path(video.id).name}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(video.path)
    examples = [block.text for block in blocks(PAGE) if block.language == "python"]
    assert len(examples) >= 5
    # The recipe's own clips would take a minute.
    small = "&".join(f"{key}={value}" for key, value in SMALL.items())
    examples[0] = examples[0].replace('"train.epochs": 1', f'"train.epochs": 1, "data": "clips?{small}"')
    body = "\n".join(f"    {line}" for example in examples for line in example.splitlines())
    (tmp_path / "script.py").write_text(f'if __name__ == "__main__":\n{body}\n')
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is not a run folder" in done.stdout
    assert done.stdout.count("my_videos") > 20


def test_every_name_is_there_and_documented():
    for name in ccl_cli.__all__:
        assert getattr(ccl_cli, name).__doc__, name
    assert set(ccl_cli.__all__) <= set(dir(ccl_cli))
    text = PAGE.read_text()
    assert [name for name in ccl_cli.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'ccl_cli' has no attribute 'distil'"):
        ccl_cli.distil  # noqa: B018


def test_importing_the_package_imports_nothing_else():
    code = "import sys, ccl_cli; sys.exit(bool({'torch', 'numpy', 'pydantic', 'av'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
