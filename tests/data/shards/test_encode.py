"""What a packed video gives back, against the file it was made from."""

from __future__ import annotations

import io
import math
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.video import storage
from ccl_cli.data.video.reader import open_video, read_frames
from ccl_cli.data.video.sound import SILENCE, read_audio
from ccl_cli.data.video.storage import Packed
from ccl_cli.errors import DataError
from tests.data.media import packed, pictures, write

JPEG = Settings()
both_formats = pytest.mark.parametrize("form", [{"format": "jpeg"}, {"format": "mp4", "quality": 20}])


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    error = float(((a.float() - b.float()) ** 2).mean())
    return 10 * math.log10(255**2 / max(error, 1e-9))


def assert_same_sound(one, two, **where):
    one, two = (
        read_audio(place, rate=32000, **{"centre": 1, "seconds": 60, **where}) for place in (one, two)
    )
    assert one.state == two.state
    if one.samples is not None:
        np.testing.assert_allclose(one.samples, two.samples, rtol=0, atol=1 / 2**15)


REAL = {  # an odd width, B-frames in an AVI, a bare MPEG stream with sound, an mp4 with a late start
    "clips/soccer_juggling/v_SoccerJuggling_g23_c01.avi": 128,
    "clips/talking/bbaf2n.mpg": 128,
    "clips/vggsound/ZYc410CE4Rg_0_10000.mp4": 96,
    "fightsurv/fight/fi001.mp4": 112,
}


@both_formats
@pytest.mark.parametrize("name", REAL)
def test_real_clips_keep_their_frames_times_and_sound(tmp_path, shared, name, form):
    path, side = tmp_path / Path(name).name, REAL[name]
    path.symlink_to(shared / "data" / name)
    location = packed(path, Settings(side, **form))
    before, after = open_video(path).metadata, open_video(location).metadata
    assert after.frames == before.frames
    times = [(before.time(k), after.time(k)) for k in range(before.frames + 1)]
    np.testing.assert_allclose(*zip(*times, strict=True), rtol=0, atol=1e-9)
    for first in range(0, before.frames - 8, before.frames // 3):
        one, other = (read_frames(where, first, 8, short_side=side) for where in (path, location))
        assert one.frames.shape == other.frames.shape
        assert psnr(one.frames, other.frames) > 32
        assert other.end == pytest.approx(one.end, abs=1e-9)
    assert_same_sound(path, location)


@both_formats
@pytest.mark.parametrize(("width", "height"), [(90, 66), (91, 65)])
def test_every_window_of_a_packed_video_is_the_one_that_was_asked_for(tmp_path, form, width, height):
    # No two frames are alike, so that a neighbour would not do. Odd sides stay odd.
    path = write(tmp_path / "a.mkv", pictures(30, width, height), codec="ffv1", pix_fmt="bgr0")
    location = packed(path, Settings(**form))
    whole, source = read_frames(location, 0, 30).frames, read_frames(path, 0, 30).frames
    assert whole.shape == source.shape
    for first in range(30):
        wanted = whole[first : first + 5]
        assert torch.equal(read_frames(location, first, 5).frames, wanted[torch.arange(5) % len(wanted)])
    errors = [[psnr(a, b) for b in source] for a in whole]
    assert np.argmax(errors, axis=1).tolist() == list(range(30))


@both_formats
def test_frames_are_made_smaller_when_packed_and_again_when_read(tmp_path, form):
    path = write(tmp_path / "a.mp4", pictures(20, 320, 240))
    location = packed(path, Settings(120, **form))
    assert read_frames(location, 0, 2, short_side=256).frames.shape == (2, 120, 160, 3)
    small = read_frames(location, 3, 4, short_side=60).frames
    assert small.shape == (4, 60, 80, 3)
    assert psnr(small, read_frames(path, 3, 4, short_side=60).frames) > 20


@both_formats
def test_uneven_times_survive(tmp_path, form):
    times = [0, 40, 110, 120, 300, 301, 420]
    path = write(tmp_path / "a.mkv", pictures(7), times=times, codec="ffv1", pix_fmt="bgr0")
    before, after = (open_video(where).metadata for where in (path, packed(path, Settings(**form))))
    assert [after.time(k) for k in range(8)] == pytest.approx([before.time(k) for k in range(8)])
    for start in (0, 0.1, 0.115, 0.35):
        assert after.frame_range(start, start + 0.1) == before.frame_range(start, start + 0.1)


@both_formats
def test_a_rate_cap_keeps_the_first_frame_of_each_period(tmp_path, form):
    path = write(tmp_path / "a.mp4", pictures(25))
    location = packed(path, Settings(64, 10, **form))
    info = open_video(location).metadata
    numbers = [0, 3, 5, 8, 10, 13, 15, 18, 20, 23]  # of 25 frames a second, ten
    assert [info.time(k) for k in range(info.frames)] == pytest.approx([k / 25 for k in numbers])
    assert info.duration == pytest.approx(1.0)
    one, other = read_frames(path, 0, 25).frames[numbers], read_frames(location, 0, 10).frames
    assert min(map(psnr, one, other)) > 20


def test_a_clip_of_a_packed_mp4_needs_its_fragments_only(tmp_path, monkeypatch):
    location = packed(write(tmp_path / "a.mp4", pictures(200)), Settings(format="mp4", quality=20))
    metadata = open_video(location).metadata
    assert metadata.keys[:, 0].tolist() == metadata.pts[::8].tolist()
    mp4, sizes, read_range = location.read("mp4"), [], storage.read_range
    monkeypatch.setattr(storage, "read_range", lambda *args: sizes.append(args[2]) or read_range(*args))
    read_frames(location, 190, 8)  # in two of 25 fragments
    assert len(sizes) == 1
    assert sizes[0] < len(mp4) / 8
    with av.open(io.BytesIO(mp4)) as container:  # for everybody, it is a whole file
        assert len(list(container.decode(video=0))) == 200


@both_formats
def test_only_the_part_that_rows_need_is_packed_and_times_stay_those_of_the_file(tmp_path, form):
    sound = np.sin(np.arange(4 * 32000) / 20)
    path = write(tmp_path / "a.mkv", pictures(100), sound=sound, sound_codec="pcm_s16le")
    location = packed(path, Settings(**form), 1.0, 3.0)
    info = open_video(location).metadata
    assert (info.frames, info.time(0), info.time(50)) == pytest.approx((50, 1.0, 3.0))
    assert (info.audio.start, info.audio.end) == pytest.approx((1.0, 3.0))
    for start, end in (1.0, 3.0), (1.5, 2.2):
        first, count = open_video(path).metadata.frame_range(start, end)
        assert info.frame_range(start, end) == (first - 25, count)
        assert psnr(read_frames(path, first, 8).frames, read_frames(location, first - 25, 8).frames) > 20
        assert_same_sound(path, location, centre=2, start=start, end=end)


# ---- sound


def test_sound_outside_the_part_is_silent_and_not_absent(tmp_path):
    path = write(tmp_path / "a.mkv", pictures(100), sound=np.ones(16000) / 2, sound_codec="pcm_s16le")
    location = packed(path, JPEG, 2.0, 3.0)
    for where in path, location:
        assert read_audio(where, centre=2.5, seconds=9, rate=32000, start=2.0, end=3.0).state == "silent"
    assert location.member("wav") is None


@pytest.mark.parametrize(
    ("level", "state"),
    [
        (None, "no track"),
        (0, "silent"),
        (0.99e-4, "silent"),
        (1.01e-4, "present"),  # rounded to 16 bits it would be 0.92e-4: silent
        (-1.01e-4, "present"),
        (0.5, "present"),
    ],
)
def test_states_of_sound_survive_exactly(tmp_path, level, state):
    sound = None if level is None else np.full(32000, level)
    path = write(tmp_path / "a.mkv", pictures(25), sound=sound, sound_codec="pcm_f32le")
    location = packed(path, JPEG)
    for where in path, location:
        assert read_audio(where, centre=0.5, seconds=10, rate=32000).state == state
    assert (location.member("wav") is None) == (state == "no track")


def test_samples_are_within_16_bits_of_a_wav_and_full_scale_stays_in_range(tmp_path):
    sound = np.random.default_rng(0).uniform(-1, 1, 64000)
    sound[:4] = 1, -1, 0.999999, -0.999999
    path = write(tmp_path / "a.mkv", pictures(50), sound=sound, sound_codec="pcm_f32le")
    location = packed(path, JPEG)
    one, other = (read_audio(where, centre=1, seconds=10, rate=32000).samples for where in (path, location))
    apart = (one - other).abs()
    assert float(apart.max()) <= 1 / 2**15
    assert float(apart[(one.abs() > 2 * SILENCE) & (one < 0.9999)].max()) <= 0.5 / 2**15 + 1e-9
    with wave.open(io.BytesIO(location.read("wav"))) as file:  # for everybody
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 32000)
        np.testing.assert_array_equal(np.frombuffer(file.readframes(70000), "<i2") / np.float32(2**15), other)


def test_a_stretch_of_a_long_track_is_read_by_offset(tmp_path, monkeypatch):
    sound = np.random.default_rng(0).normal(0, 0.1, 20 * 16000).clip(-1, 1)
    path = write(tmp_path / "a.mkv", pictures(25), sound=sound, sound_codec="pcm_s16le", sound_rate=16000)
    location, taken, read = packed(path, Settings(rate=16000)), [], Packed.read
    monkeypatch.setattr(Packed, "read", lambda *args: taken.append(read(*args)) or taken[-1])
    one, other = (read_audio(where, centre=14.0, seconds=2, rate=16000) for where in (path, location))
    assert float((one.samples - other.samples).abs().max()) <= 1 / 2**15
    assert len(taken[-1]) == 2 * 2 * 16000


def test_sound_that_was_left_out_is_asked_for_in_vain_but_never_taken_for_absent(tmp_path):
    path = write(tmp_path / "a.mkv", pictures(25), sound=np.ones(32000) / 2, sound_codec="pcm_f32le")
    location = packed(path, Settings(rate=None))
    assert location.member("wav") is None
    with pytest.raises(DataError, match="was packed without its sound"):
        read_audio(location, centre=0, seconds=1, rate=32000)
    mute = packed(write(tmp_path / "b.mkv", pictures(25)), Settings(rate=None))
    assert read_audio(mute, centre=0, seconds=1, rate=32000).state == "no track"


# ---- damage


def test_a_damaged_frame_is_named(tmp_path):
    location = packed(write(tmp_path / "a.mp4", pictures(40, 240, 240)), JPEG)
    content = bytearray(Path(location.shard).read_bytes())
    begin = location.member("jpgs").offset + int(open_video(location)._offsets[20])
    content[begin : begin + 200] = bytes(200)
    Path(location.shard).write_bytes(content)
    assert read_frames(location, 0, 16).frames.shape[0] == 16
    with pytest.raises(DataError, match=r"A frame of '.*\.tar/a/b' from 10 to 25 is damaged"):
        read_frames(location, 10, 16)


@both_formats
def test_a_shard_that_is_cut_off_says_so(tmp_path, form):
    path = write(tmp_path / "a.mp4", pictures(40, 240, 240), sound=np.ones(50000) / 2)
    location = packed(path, Settings(**form))
    with Path(location.shard).open("r+b") as file:
        file.truncate(location.members[1].offset + location.members[1].size // 2)
    with pytest.raises(DataError, match=r"\.tar' ends before byte .* it is cut off"):
        read_frames(location, 20, 16)
    with pytest.raises(DataError, match="it is cut off"):
        read_audio(location, centre=1, seconds=1, rate=32000)


def test_another_shard_in_its_place_is_noticed(tmp_path):
    location = packed(write(tmp_path / "a.mp4", pictures(10)), JPEG)
    shifted = tuple(member._replace(offset=member.offset + 512) for member in location.members)
    for key, members in (("a/c", location.members), ("a/b", shifted)):
        with pytest.raises(DataError, match="is not where its index says"):
            open_video(Packed(location.shard, key, members))
