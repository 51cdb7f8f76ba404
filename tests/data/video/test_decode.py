from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from ccl_cli.data.video import file_reader
from ccl_cli.data.video.reader import open_video, read_clip, read_frames
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import DataError
from tests.data.media import display_matrix, iter_windows, looped, pictures, sequential, write

OPEN_GOP = {"preset": "veryfast", "x264-params": "open-gop=1:keyint=12:bframes=3:b-pyramid=normal:scenecut=0"}
ENCODED = {
    "h264.mp4": {"codec": "libx264", "b_frames": 3, "options": OPEN_GOP},
    "h264.mkv": {"codec": "libx264", "b_frames": 3, "options": OPEN_GOP},
    "h264.ts": {"codec": "libx264", "b_frames": 3, "options": OPEN_GOP},
    "h264.avi": {"codec": "libx264", "b_frames": 3, "options": OPEN_GOP},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {
            "preset": "ultrafast",
            "x265-params": "log-level=0:open-gop=1:keyint=12:bframes=4:pools=1",
        },
    },
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4-b.avi": {"codec": "mpeg4", "b_frames": 2},
    "mpeg1.mpg": {"codec": "mpeg1video"},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "wmv2.wmv": {"codec": "wmv2"},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}


def assert_every_window(path, count=5, short_side=32, step=1):
    reference = sequential(path, short_side)
    info = open_video(path).metadata
    assert info.frames == len(reference)
    for first in range(0, len(reference), step):
        clip = read_frames(path, first, count, short_side=short_side)
        np.testing.assert_array_equal(clip.frames, looped(reference, first, count), f"window at {first}")
        assert clip.end == info.time(min(first + count, len(reference)))


UNSEEKABLE = ("h264.avi", "mpeg4-b.avi", "mpeg1.mpg", "mpeg2.mpg")  # their timestamps cannot be trusted


@pytest.mark.parametrize("name", ENCODED)
def test_windows_and_single_frames_of_every_format_equal_the_sequential_decode(tmp_path, name):
    path = write(tmp_path / name, pictures(40), **ENCODED[name])
    assert_every_window(path)
    assert open_video(path).metadata.seekable == (name not in UNSEEKABLE)
    reference = sequential(path, 32)
    for numbers in ([0, 3, 6, 9], [13, 21, 29], [2, 2, 20, 39], [1, 38], [39]):  # some are sought twice
        frames = read_clip(open_video(path), numbers, len(numbers), short_side=32).frames
        np.testing.assert_array_equal(frames, reference[numbers], f"{numbers}")


REAL = (
    "clips/activitynet/v_GGSY1Qvo990.mp4",
    "clips/cartwheel/hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi",
    "clips/kinetics/SOX5yA1l24A.mp4",
    "clips/mmaction/demo.mp4",
    "clips/mmaction/test.avi",
    "clips/soccer_juggling/v_SoccerJuggling_g23_c01.avi",
    "clips/talking/bbaf2n.mpg",
    "clips/vggsound/ZYc410CE4Rg_0_10000.mp4",
    "clips/wave/RATRACE_wave_f_nm_np1_fr_goo_37.avi",
    "fightsurv/fight/fi001.mp4",
    "fightsurv/noFight/nofi150.mp4",
)


@pytest.mark.parametrize("name", REAL)
def test_windows_of_real_files_equal_the_sequential_decode(shared, name):
    path = shared / "data" / name
    assert_every_window(path, count=16, step=max(1, open_video(path).metadata.frames // 7))


@pytest.mark.long
def test_every_real_file_equals_the_sequential_decode(shared):
    paths = [*(shared / "data/clips").glob("*/*"), *sorted((shared / "data/fightsurv").glob("*/*"))[::10]]
    assert len(paths) > 40
    for path in paths:
        assert_every_window(
            path, count=16, short_side=48, step=1 if open_video(path).metadata.frames < 100 else 5
        )


def test_packed_b_frames_count_only_frames_that_are_shown(shared):
    path = shared / "data/clips/wave/TrumanShow_wave_f_nm_np1_fr_med_26.avi"
    info = open_video(path).metadata
    assert not info.seekable
    assert info.frames == len(sequential(path, 16)) == 48  # in 49 packets
    assert info.time(0) == 0
    assert info.time(30) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.ts"])
def test_a_key_frame_that_is_none_is_noticed(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, pictures(30), codec="mpeg4" if name == "a.avi" else "libx264", gop=15)
    info = open_video(path).metadata
    dts = info.keys[0, 1] + info.pts[19] - info.pts[0]
    keys = np.array([info.keys[0], (info.pts[19], dts)])
    monkeypatch.setattr(open_video(path), "metadata", replace(info, keys=keys))
    reference = sequential(path)
    for first in (19, 22, 26):
        np.testing.assert_array_equal(read_frames(path, first, 4).frames, reference[first : first + 4])


def test_an_avi_without_its_index_is_read_all_the_same(tmp_path):
    path = write(tmp_path / "a.avi", pictures(30), codec="mpeg4")
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"idx1")])
    assert_every_window(path)


def test_a_seek_that_ends_at_the_wrong_frame_falls_back(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", pictures(30), gop=10)
    expected = read_frames(path, 21, 5).frames

    def astray(container, info, numbers):
        yield from list(sought(container, info, numbers))[::2]

    sought = file_reader._seek_frames
    monkeypatch.setattr(file_reader, "_seek_frames", astray)
    assert torch.equal(read_frames(path, 21, 5).frames, expected)
    (window,) = iter_windows(path, 5, 5, start=21 / 25, end=26 / 25)
    assert torch.equal(window.frames, expected)


@pytest.mark.parametrize("first", [-1, 3, 10])
def test_a_frame_that_is_not_there_is_refused(tmp_path, first):
    path = write(tmp_path / "a.mp4", pictures(3))
    with pytest.raises(DataError, match=f"has 3 frames, so there is no frame {first}"):
        read_frames(path, first, 2)


def test_variable_frame_rate_counts_frames_in_order(tmp_path):
    times = [0, 40, 50, 400, 410, 420, 1000, 1040, 1500, 1510]
    path = write(tmp_path / "a.mkv", pictures(10), times=times, b_frames=2)
    assert_every_window(path, count=3)
    info = open_video(path).metadata
    assert [round(1000 * info.time(frame)) for frame in range(10)] == times
    assert info.frame_range(0.405, 1.02) == (3, 4)


def test_frame_range_names_the_frames_shown(tmp_path):
    info = open_video(write(tmp_path / "a.mp4", pictures(25))).metadata  # 0.04 s each
    assert info.frame_range() == (0, 25)
    assert info.frame_range(0.4) == (10, 15)
    assert info.frame_range(None, 0.4) == (0, 10)
    assert info.frame_range(0.41, 0.43) == (10, 1)
    assert info.frame_range(0.4, 0.44) == (10, 1)
    assert info.frame_range(0.96, 9.0) == (24, 1)
    for start, end in ((1.0, None), (2.0, 3.0), (None, 0.0)):
        with pytest.raises(DataError, match="lies outside"):
            info.frame_range(start, end)


def test_sliding_windows_do_not_read_ahead(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", pictures(50))
    converted = []
    convert = file_reader.ToImage.__call__
    monkeypatch.setattr(
        file_reader.ToImage, "__call__", lambda self, frame: converted.append(1) or convert(self, frame)
    )
    next(iter_windows(path, 8, 8))
    assert len(converted) == 8


def test_large_frames_are_scaled_down_and_small_ones_are_not_scaled_up(tmp_path):
    image = np.zeros((1, 120, 200, 3), np.uint8)
    image[:, :, :100] = (200, 40, 90)
    path = write(tmp_path / "a.mkv", image, codec="ffv1", pix_fmt="yuv444p")
    small = read_frames(path, 0, 1, short_side=30).frames[0].float()
    assert small.shape == (30, 50, 3)
    assert (small[:, :24] - torch.tensor([200.0, 40, 90])).abs().max() <= 3
    assert small[:, 26:].max() <= 3
    assert read_frames(path, 0, 1, short_side=500).frames.shape == (1, 120, 200, 3)


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "colour_range"),
    [
        ("yuv420p", "libx264", 1),
        ("yuv420p", "libx264", 2),
        ("yuvj420p", "mjpeg", 2),
        ("yuv420p10le", "libx264", 1),
    ],
)
def test_colours_survive_any_range_and_depth(tmp_path, pix_fmt, codec, colour_range):
    colours = np.array([(250, 5, 5), (5, 250, 5), (255, 255, 255), (0, 0, 0)], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (4, 64, 64, 3)).copy()
    options = {"crf": "5", "color_range": str(colour_range)} if codec == "libx264" else {}
    path = write(
        tmp_path / "a.mkv", images, codec=codec, pix_fmt=pix_fmt, colour_range=colour_range, options=options
    )
    read = read_frames(path, 0, 4).frames.numpy().astype(int)
    assert abs(read[:, 32, 32] - colours).max() <= 6


MATRICES = {
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.swapaxes(0, 1),
    (0, -1, -1, 0): lambda image: np.rot90(image.swapaxes(0, 1), 2),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_turned_and_mirrored_videos_stand_upright(tmp_path, matrix):
    path = write(tmp_path / "a.mp4", pictures(2))
    plain = sequential(path)
    display_matrix(path, matrix)
    frames = read_frames(path, 0, 2).frames.numpy()
    for frame, image in zip(frames, plain, strict=True):
        np.testing.assert_array_equal(frame, MATRICES[matrix](image))


def test_a_file_that_changes_is_indexed_anew(tmp_path):
    path = write(tmp_path / "a.mp4", pictures(5))
    assert open_video(path).metadata.frames == 5
    assert open_video(path).metadata is open_video(path).metadata
    write(path, pictures(9))
    assert open_video(path).metadata.frames == 9


def test_small_videos_stay_decoded_until_the_file_changes(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 256, (2, 6, 32, 48, 3), dtype=np.uint8)
    path = tmp_path / "small.mp4"
    write_clip(path, first, 25)
    real, opened = file_reader.decode_frames, []
    monkeypatch.setattr(file_reader, "decode_frames", lambda *args: opened.append(args) or real(*args))
    whole = read_frames(path, 0, 6).frames
    part = read_frames(path, 2, 3)
    assert torch.equal(part.frames, whole[2:5])
    assert part.end == pytest.approx(5 / 25)
    part.frames.zero_()  # what is handed out is the caller's
    assert torch.equal(read_frames(path, 2, 3).frames, whole[2:5])
    assert len(opened) == 1
    write_clip(path, second, 25)
    os.utime(path, ns=(1, 1))
    assert not torch.equal(read_frames(path, 0, 6).frames, whole)
