from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.data.checks.inspect import Inspection, Subject, decode, inspect
from ccl_cli.errors import DataError
from tests.data.media import pictures, write

TONE = np.sin(np.arange(32000) / 8).astype(np.float32) / 2


def inspected(path: Path, start=None, end=None) -> Inspection:
    return inspect(Subject(str(path), start, end))


@pytest.mark.parametrize(
    ("sound", "state"),
    [
        (None, "no track"),
        (0 * TONE, "silent"),
        (np.concatenate([0 * TONE[:24000], TONE[:8000]]), "present"),
    ],
)
def test_a_whole_video(tmp_path, sound, state):
    path = write(tmp_path / "a.mp4", pictures(25), sound=sound)
    result = inspected(path)
    assert result == Inspection(None, None, 25, result.seconds, 96, 64, state)
    assert result.seconds == pytest.approx(1.0, abs=0.05)
    assert result.rate == pytest.approx(25, rel=0.05)
    assert decode(Subject(str(path))) is None


def test_a_segment_is_judged_by_its_own_frames_and_sound(tmp_path):
    path = write(tmp_path / "a.mp4", pictures(50), sound=np.concatenate([0 * TONE, TONE]))
    assert [inspected(path, *times)[2::4] for times in ((0.0, 0.8), (1.2, 2.0))] == [
        (20, "silent"),
        (20, "present"),
    ]
    assert "lies outside it" in str(inspected(path, 9.0, 10.0).fault)


def test_what_cannot_be_read_has_a_reason_without_its_path(tmp_path):
    (tmp_path / "e.mp4").touch()
    (tmp_path / "t.mp4").write_text("no video" * 100)
    write(tmp_path / "s.mp4", sound=TONE)
    reasons = [inspected(tmp_path / name).fault for name in ("e.mp4", "s.mp4", "t.mp4", "")]
    words = ["it is empty", "it has no picture", "it is not a complete media file", "it is not a file"]
    assert all(reason.startswith(word) for reason, word in zip(reasons, words, strict=True))
    with pytest.raises(DataError, match="No such file"):  # what the disk refuses is no fault of the file
        inspected(tmp_path / "absent.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_file_that_was_cut_off_is_damaged(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", pictures(100, 320, 240), faststart=suffix == ".mp4")
    assert inspected(path).damage is None
    os.truncate(path, path.stat().st_size // 2)
    result = inspected(path)
    assert result.fault is None
    assert "of 4.0 s" in str(result.damage)
    assert 10 < result.frames < 90


@pytest.mark.slow
def test_real_clips_are_whole(shared):
    clips = [
        *sorted((shared / "data/clips").glob("*/*")),
        *sorted((shared / "data/fightsurv").glob("*/*.mp4"))[::30],
    ]
    for clip in clips:
        assert inspected(clip)[:2] == (None, None), clip
        assert decode(Subject(str(clip))) is None, clip
