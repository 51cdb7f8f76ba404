from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.data.checks import findings, inspect
from ccl_cli.data.checks.findings import Effort
from ccl_cli.data.checks.verify import PROBLEMS, verify
from ccl_cli.data.sources import load_data
from tests.data.media import pictures, write

EFFORT = Effort(2, 60.0)
TONE = np.sin(np.arange(64000) / 8).astype(np.float32) / 2


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two classes with one video of every kind."""
    root = tmp_path_factory.mktemp("verify") / "set"
    for label in ("a", "b"):
        (root / "train" / label).mkdir(parents=True)
        (root / "test" / label).mkdir(parents=True)
    train = root / "train"
    write(train / "a/good.mp4", pictures(50), sound=TONE)
    write(train / "a/silent.mp4", pictures(50), sound=0 * TONE)
    write(train / "a/short.mp4", pictures(8), sound=TONE[:9600])
    write(train / "b/trackless.mp4", pictures(50))
    (train / "b/empty.mp4").touch()
    shutil.copy(train / "a/good.mp4", root / "test/b/copy.mp4")
    flipped = write(root / "test/a/flipped.mp4", pictures(100, 320, 240), sound=TONE.repeat(2))
    content = bytearray(flipped.read_bytes())
    for at in range(len(content) // 4, len(content) // 2, 500):
        content[at] ^= 255
    flipped.write_bytes(content)
    return root


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy."""
    return Path(shutil.copytree(made, tmp_path / "set"))


def found(report) -> set[tuple[str, str]]:
    return {(each.problem, each.id) for each in report.problems}


EASY = {
    ("corrupt", "train/b/empty"),
    ("silent", "train/a/silent"),
    ("no track", "train/b/trackless"),
    ("short", "train/a/short"),
    # The list of a folder is in the order of its names: the test split comes first.
    ("duplicate", "train/a/good"),
}


def test_every_kind_of_problem(folder):
    manifest = load_data(f"folder:{folder}")
    (folder / "train/a/gone.mp4").touch()
    with_gone = load_data(f"folder:{folder}")
    (folder / "train/a/gone.mp4").unlink()
    report = verify(with_gone, EFFORT, frames=16)
    assert found(report) == EASY | {("missing", "train/a/gone")}
    assert report.broken == 2
    assert [PROBLEMS.index(each.problem) for each in report.problems] == sorted(
        PROBLEMS.index(each.problem) for each in report.problems
    )
    assert found(verify(manifest, EFFORT, frames=8)) == EASY - {("short", "train/a/short")}
    duplicate = next(each for each in report.problems if each.problem == "duplicate")
    assert duplicate.reason == "same bytes as 'test/b/copy' (test, b)"
    assert report.counts() == {
        "train": dict(videos=6, missing=1, corrupt=1, silent=1, short=1, duplicate=1) | {"no track": 1},
        "test": dict(videos=2, missing=0, corrupt=0, silent=0, short=0, duplicate=0) | {"no track": 0},
    }


def test_deep_finds_what_an_index_does_not_tell(folder):
    manifest = load_data(f"folder:{folder}")
    assert found(verify(manifest, EFFORT, frames=16)) == EASY
    deep = verify(manifest, EFFORT, frames=16, deep=True)
    assert found(deep) == EASY | {("corrupt", "test/a/flipped")}
    assert "damaged" in next(each.reason for each in deep.problems if each.id == "test/a/flipped")
    assert deep.broken == 2


def test_nothing_wrong(tmp_path, folder):
    shutil.rmtree(folder / "test")
    for name in ("a/silent", "a/short", "b/trackless", "b/empty"):
        (folder / f"train/{name}.mp4").unlink()
    report = verify(load_data(f"folder:{folder}", ()), EFFORT, frames=16, deep=True)
    assert (report.problems, report.broken) == ((), 0)


def _treacherous(subject):
    """What a file could do to the decoder."""
    if "short" in subject.path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "trackless" in subject.path:
        time.sleep(600)
    return inspect.look(subject)


def test_a_file_that_crashes_or_hangs_the_decoder_is_corrupt(folder, monkeypatch):
    monkeypatch.setattr("ccl_cli.data.checks.verify.LOOK", findings.LOOK._replace(work=_treacherous))
    report = verify(load_data(f"folder:{folder}"), Effort(1, 2.5), frames=16)
    reasons = {each.id: each.reason for each in report.problems if each.problem == "corrupt"}
    assert reasons == {
        "train/a/short": "the process that read it ended (SIGSEGV)",
        "train/b/trackless": "it was not read within 2.5 s",
        "train/b/empty": "it is empty (0 bytes)",
    }
    assert ("silent", "train/a/silent") in found(report)


def test_the_report_as_plain_values(folder):
    plain = verify(load_data(f"folder:{folder}"), EFFORT, frames=16).as_json()
    assert set(plain) == {"data", "hash", "counts", "files"}
    assert plain["files"][0] == {
        "problem": "corrupt",
        "id": "train/b/empty",
        "split": "train",
        "label": "b",
        "path": str(folder / "train/b/empty.mp4"),
        "reason": "it is empty (0 bytes)",
    }
