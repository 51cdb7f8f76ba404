from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.data.checks import inspect
from ccl_cli.data.checks.check import COLUMNS, PROBLEMS, Problem, check
from ccl_cli.data.checks.findings import Effort
from ccl_cli.data.sources import load_data
from tests.data.media import pictures, write

EFFORT = Effort(2, 60.0)
TONE = np.sin(np.arange(64000) / 8).astype(np.float32) / 2


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two classes with one video of every kind."""
    root = tmp_path_factory.mktemp("check") / "set"
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


def problems(report) -> set[tuple[str, str]]:
    return {(each.problem, each.id) for each in report.problems}


SHALLOW = {
    ("corrupt", "train/b/empty"),
    ("silent", "train/a/silent"),
    ("no track", "train/b/trackless"),
    ("short", "train/a/short"),
    # The list of a folder is in the order of its names: the test split comes first.
    ("duplicate", "train/a/good"),
}


def test_every_kind_of_problem_is_listed_and_counted(folder):
    (folder / "train/a/gone.mp4").touch()
    manifest = load_data(f"folder:{folder}")
    (folder / "train/a/gone.mp4").unlink()
    report = check(manifest, EFFORT, frames=16)
    assert problems(report) == SHALLOW | {("missing", "train/a/gone")}
    assert report.broken == 2
    order = [PROBLEMS.index(each.problem) for each in report.problems]
    assert order == sorted(order)
    assert report.problems[1] == Problem(
        *("corrupt", "train/b/empty", "train", "b"),
        str(folder / "train/b/empty.mp4"),
        "it is empty (0 bytes)",
    )
    assert report.problems[-1].reason == "same bytes as 'test/b/copy' (test, b)"
    #                      videos, with sound, missing, corrupt, silent, no track, short, duplicate
    assert {split: tuple(row.values()) for split, row in report.splits.items()} == {
        "train": (6, 2, 1, 1, 1, 1, 1, 1),
        "test": (2, 2, 0, 0, 0, 0, 0, 0),
    }
    assert tuple(report.classes["train"]["b"].values()) == (2, 0, 0, 1, 0, 1, 0, 0)
    assert tuple(report.splits["train"]) == COLUMNS


def test_readable_videos_are_measured(folder):
    report = check(load_data(f"folder:{folder}"), EFFORT, frames=8)
    assert problems(report) == SHALLOW - {("short", "train/a/short")}
    frames = report.percentiles("train")["frames"]
    assert (frames[0], frames[50], frames[100]) == (8, 50, 50)
    assert report.percentiles("train")["rate"][50] == pytest.approx(25, rel=0.1)
    assert report.sizes == {(96, 64): 5, (320, 240): 1}
    plain = json.loads(json.dumps(report.as_json()))
    assert set(plain) == {"data", "hash", "splits", "sizes", "problems"}
    assert plain["sizes"] == {"96x64": 5, "320x240": 1}
    assert plain["splits"]["test"]["hours"] == pytest.approx(6 / 3600, abs=1e-3)
    assert plain["splits"]["test"]["percentiles"]["frames"]["100"] == 100
    assert plain["splits"]["train"]["classes"]["a"]["with sound"] == 2
    assert plain["problems"][0]["reason"] == "it is empty (0 bytes)"


def test_deep_decodes_what_an_index_does_not_show(folder):
    report = check(load_data(f"folder:{folder}"), EFFORT, frames=16, deep=True)
    assert problems(report) == SHALLOW | {("corrupt", "test/a/flipped")}
    assert "damaged" in next(each.reason for each in report.problems if each.id == "test/a/flipped")
    assert report.broken == 2


def test_a_set_without_problems_and_one_without_videos(folder):
    shutil.rmtree(folder / "test")
    for name in ("a/silent", "a/short", "b/trackless", "b/empty"):
        (folder / f"train/{name}.mp4").unlink()
    manifest = load_data(f"folder:{folder}", ())
    report = check(manifest, EFFORT, frames=16, deep=True)
    assert (report.problems, report.broken) == ((), 0)
    shutil.rmtree(folder)
    report = check(replace(manifest), EFFORT, frames=16)
    assert (problems(report), report.percentiles("train")) == ({("missing", "train/a/good")}, {})


def _treacherous(subject):
    """What a file could do to the decoder."""
    if "short" in subject.path:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGSEGV)
    if "trackless" in subject.path:
        time.sleep(600)
    return inspect.inspect(subject)


@pytest.mark.slow
def test_a_file_that_crashes_or_hangs_the_decoder_is_corrupt(folder, monkeypatch):
    monkeypatch.setattr("ccl_cli.data.checks.check.inspect", _treacherous)
    report = check(load_data(f"folder:{folder}"), Effort(1, 2.5), frames=16)
    reasons = {each.id: each.reason for each in report.problems if each.problem == "corrupt"}
    assert reasons == {
        "train/a/short": "the process that read it ended (SIGSEGV)",
        "train/b/trackless": "it was not read within 2.5 s",
        "train/b/empty": "it is empty (0 bytes)",
    }
    assert ("silent", "train/a/silent") in problems(report)
