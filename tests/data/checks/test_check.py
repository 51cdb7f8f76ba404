from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.data.checks import findings
from ccl_cli.data.checks.check import COLUMNS, Problem, check
from ccl_cli.data.checks.findings import Effort
from ccl_cli.data.checks.pool import Failure
from ccl_cli.data.sources import load_data
from tests.data.media import pictures, write

EFFORT = Effort(2, 60.0)
TONE = np.sin(np.arange(64000) / 8).astype(np.float32) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes with one video of every kind; "train/a/good" has the bytes of a file in the test split."""
    root = tmp_path_factory.mktemp("check") / "set"
    for name in "train/a", "train/b", "test/a", "test/b":
        (root / name).mkdir(parents=True)
    write(root / "train/a/good.mp4", pictures(50), sound=TONE)
    write(root / "train/a/silent.mp4", pictures(50), sound=0 * TONE)
    write(root / "train/a/short.mp4", pictures(8), sound=TONE[:9600])
    write(root / "train/b/trackless.mp4", pictures(50))
    (root / "train/b/empty.mp4").touch()
    shutil.copy(root / "train/a/good.mp4", root / "test/b/copy.mp4")
    flipped = write(root / "test/a/flipped.mp4", pictures(100, 320, 240), sound=TONE.repeat(2))
    content = bytearray(flipped.read_bytes())
    for at in range(len(content) // 4, len(content) // 2, 500):
        content[at] ^= 255
    flipped.write_bytes(content)
    return root


def problems(report) -> list[tuple[str, str]]:
    return [(each.problem, each.id) for each in report.problems]


SHALLOW = [
    ("corrupt", "train/b/empty"),
    ("silent", "train/a/silent"),
    ("no track", "train/b/trackless"),
    ("short", "train/a/short"),
    ("duplicate", "train/a/good"),
]


def test_every_kind_of_problem_is_listed_and_counted(folder):
    (folder / "train/a/gone.mp4").touch()
    manifest = load_data(f"folder:{folder}")
    (folder / "train/a/gone.mp4").unlink()
    report = check(manifest, EFFORT, frames=16)
    assert problems(report) == [("missing", "train/a/gone"), *SHALLOW]
    assert report.broken == 2
    empty = str(folder / "train/b/empty.mp4")
    assert report.problems[1] == Problem(
        "corrupt", "train/b/empty", "train", "b", empty, "it is empty (0 bytes)"
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
    assert problems(report) == [each for each in SHALLOW if each[0] != "short"]
    assert report.percentiles("train")["frames"][0] == 8
    assert report.percentiles("train")["rate"][50] == pytest.approx(25, rel=0.1)
    plain = json.loads(json.dumps(report.as_json()))
    assert set(plain) == {"data", "hash", "splits", "sizes", "problems"}
    assert plain["sizes"] == {"96x64": 5, "320x240": 1}
    assert plain["splits"]["test"]["hours"] == pytest.approx(6 / 3600, abs=1e-3)
    assert plain["splits"]["test"]["percentiles"]["frames"]["100"] == 100
    assert plain["splits"]["train"]["classes"]["a"]["with sound"] == 2
    assert plain["problems"][0]["reason"] == "it is empty (0 bytes)"


def test_deep_decodes_what_an_index_does_not_show(folder):
    report = check(load_data(f"folder:{folder}"), EFFORT, frames=16, deep=True)
    assert problems(report) == [("corrupt", "test/a/flipped"), *SHALLOW]
    assert "damaged" in report.problems[0].reason


def test_a_file_that_crashes_or_hangs_the_decoder_is_corrupt(folder, monkeypatch):
    monkeypatch.setattr(findings, "run_each", lambda jobs, *_, **__: ((job, Failure("hung")) for job in jobs))
    report = check(load_data(f"folder:{folder}"), EFFORT, frames=16, deep=True)
    assert {(each.problem, each.reason) for each in report.problems} == {("corrupt", "hung")}
    assert report.broken == len(report.manifest.videos)
    assert report.percentiles("train") == {}
