from __future__ import annotations

import os
import random
from pathlib import Path

import av
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
        (TONE, "present"),
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


def test_a_stretch_is_judged_by_its_own_frames_and_sound(tmp_path):
    path = write(tmp_path / "a.mp4", pictures(50), sound=np.concatenate([0 * TONE, TONE]))
    assert inspected(path).sound == "present"
    first, second = inspected(path, 0.0, 0.8), inspected(path, 1.2, 2.0)
    assert (first.frames, first.sound) == (20, "silent")
    assert (second.frames, second.sound) == (20, "present")
    assert "lies outside it" in str(inspected(path, 9.0, 10.0).fault)


def test_what_cannot_be_read_has_a_reason_without_its_path(tmp_path):
    empty, text = tmp_path / "e.mp4", tmp_path / "t.mp4"
    empty.touch()
    text.write_text("no video" * 100)
    sound = write(tmp_path / "s.mp4", sound=TONE)
    assert [inspected(path).fault for path in (empty, sound, tmp_path)] == [
        "it is empty (0 bytes)",
        "it has no picture, only sound",
        "it is not a file",
    ]
    assert inspected(text).fault.startswith("it is not a complete media file")


def test_what_the_disk_refuses_is_no_inspected(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        inspected(tmp_path / "absent.mp4")


def _cut(path: Path, share: float) -> None:
    os.truncate(path, int(share * path.stat().st_size))


def _front(path: Path) -> Path:
    """The same file with its header before the pictures: cut off, it can still be read."""
    moved = path.with_name(f"front_{path.name}")
    with (
        av.open(str(path)) as file,
        av.open(str(moved), "w", options={"movflags": "faststart"}) as out,
    ):
        streams = {each.index: out.add_stream_from_template(each) for each in file.streams}
        for packet in file.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return moved


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_file_that_was_cut_off_is_damaged(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", pictures(100, 320, 240))
    path = _front(path) if suffix == ".mp4" else path
    assert inspected(path).damage is None
    _cut(path, 0.5)
    result = inspected(path)
    assert result.fault is None
    assert "of 4.0 s" in str(result.damage)
    assert 10 < result.frames < 90


def test_flipped_bits_show_by_decoding_alone(tmp_path):
    path = write(tmp_path / "a.mp4", pictures(100, 320, 240), sound=TONE.repeat(4))
    content = bytearray(path.read_bytes())
    rng = random.Random(0)
    for _ in range(40):
        content[rng.randrange(len(content) // 4, len(content) // 2)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    assert inspected(path)[:2] == (None, None)
    assert "damaged" in str(decode(Subject(str(path))))


@pytest.mark.slow
def test_real_clips_are_whole_and_damaged_ones_are_not(shared, tmp_path):
    clips = [
        *sorted((shared / "data/clips").glob("*/*")),
        *sorted((shared / "data/fightsurv").glob("*/*.mp4"))[::30],
    ]
    rng = random.Random(0)
    for clip in clips:
        assert inspected(clip)[:2] == (None, None), clip
        assert decode(Subject(str(clip))) is None, clip
        cut, flipped = tmp_path / f"cut{clip.suffix}", tmp_path / f"flipped{clip.suffix}"
        content = bytearray(clip.read_bytes())
        cut.write_bytes(content[: len(content) * 2 // 3])
        for _ in range(200):
            content[rng.randrange(len(content) // 4, len(content) * 3 // 4)] ^= 1 << rng.randrange(8)
        flipped.write_bytes(content)
        short = inspected(cut)
        assert short.fault or short.damage or decode(Subject(str(cut))), clip
        assert inspected(flipped).fault or decode(Subject(str(flipped))), clip
