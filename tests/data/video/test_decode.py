"""Frames of files, against a plain sequential decode."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ccl_cli.data.video import reader
from ccl_cli.data.video.file_reader import FileReader, ToImage
from ccl_cli.data.video.reader import open_video, read_clip, read_frames
from ccl_cli.errors import DataError
from tests.data.media import display_matrix, iter_windows, looped, pictures, sequential, write

X264 = {"preset": "veryfast", "x264-params": "open-gop=1:keyint=12:bframes=3:b-pyramid=normal:scenecut=0"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=0:open-gop=1:keyint=12:bframes=4:pools=1"}
ENCODED = {
    **{f"h264.{suffix}": {"b_frames": 3, "options": X264} for suffix in ("mp4", "mkv", "ts", "avi")},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4-b.avi": {"codec": "mpeg4", "b_frames": 2},
    "mpeg1.mpg": {"codec": "mpeg1video"},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "wmv2.wmv": {"codec": "wmv2"},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}
UNSEEKABLE = ("h264.avi", "mpeg4-b.avi", "mpeg1.mpg", "mpeg2.mpg")  # their timestamps cannot be trusted


def assert_every_window(path, count=5, step=1):
    reference = sequential(path, 32)
    info = open_video(path).metadata
    assert info.frames == len(reference)
    for first in range(0, len(reference), step):
        clip = read_frames(path, first, count, short_side=32)
        np.testing.assert_array_equal(clip.frames, looped(reference, first, count), f"window at {first}")
        assert clip.end == info.time(min(first + count, len(reference)))


@pytest.mark.parametrize("name", ENCODED)
def test_windows_and_single_frames_of_every_format_equal_the_sequential_decode(tmp_path, name):
    path = write(tmp_path / name, pictures(40), **ENCODED[name])
    assert_every_window(path)
    assert open_video(path).metadata.seekable == (name not in UNSEEKABLE)
    reference = sequential(path, 32)
    for numbers in ([0, 3, 6, 9], [13, 21, 29], [2, 2, 20, 39], [1, 38]):  # some are sought twice
        frames = read_clip(open_video(path), numbers, len(numbers), short_side=32).frames
        np.testing.assert_array_equal(frames, reference[numbers], f"{numbers}")


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.long)])
def test_windows_of_real_files_equal_the_sequential_decode(shared, every):
    clips, fights = ((shared / "data" / name).glob("*/*") for name in ("clips", "fightsurv"))
    for path in [*sorted(clips)[::every], *sorted(fights)[:: 10 * every]]:
        assert_every_window(path, 16, max(1, open_video(path).metadata.frames * every // 60))


def test_packed_b_frames_count_only_frames_that_are_shown(shared):
    path = shared / "data/clips/wave/TrumanShow_wave_f_nm_np1_fr_med_26.avi"
    info = open_video(path).metadata
    assert info.frames == len(sequential(path, 16)) == 48  # in 49 packets
    assert (info.seekable, info.time(0), info.time(30)) == (False, 0, 1.0)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.ts"])
def test_a_key_frame_that_is_none_is_noticed(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, pictures(30), codec="mpeg4" if name == "a.avi" else "libx264", gop=15)
    info = open_video(path).metadata
    keys = np.array([info.keys[0], (info.pts[19], info.keys[0, 1] + info.pts[19] - info.pts[0])])
    monkeypatch.setattr(open_video(path), "metadata", replace(info, keys=keys))
    reference = sequential(path)
    for first in (19, 22, 26):
        np.testing.assert_array_equal(read_frames(path, first, 4).frames, reference[first : first + 4])


def test_an_avi_without_its_index_is_read_all_the_same(tmp_path):
    path = write(tmp_path / "a.avi", pictures(30), codec="mpeg4")
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"idx1")])
    assert_every_window(path, step=7)


def test_a_seek_that_ends_at_the_wrong_frame_falls_back(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", pictures(30), gop=10)
    sought = FileReader._seek_frames
    monkeypatch.setattr(FileReader, "_seek_frames", lambda *args: list(sought(*args))[::2])
    assert_every_window(path, step=7)


@pytest.mark.parametrize("first", [-1, 3, 10])
def test_a_frame_that_is_not_there_is_refused(tmp_path, first):
    with pytest.raises(DataError, match=f"has 3 frames, so there is no frame {first}"):
        read_frames(write(tmp_path / "a.mp4", pictures(3)), first, 2)


def test_variable_frame_rate_counts_frames_in_order(tmp_path):
    times = [0, 40, 50, 400, 410, 420, 1000, 1040, 1500, 1510]
    path = write(tmp_path / "a.mkv", pictures(10), times=times, b_frames=2)
    assert_every_window(path, count=3)
    info = open_video(path).metadata
    assert [round(1000 * info.time(frame)) for frame in range(10)] == times
    assert info.frame_range(0.405, 1.02) == (3, 4)


def test_frame_range_names_the_frames_shown(tmp_path):
    info = open_video(write(tmp_path / "a.mp4", pictures(25))).metadata  # 0.04 s each
    spans = [(None, None), (0.4, None), (None, 0.4), (0.41, 0.43), (0.4, 0.44), (0.96, 9.0)]
    frames = [(0, 25), (10, 15), (0, 10), (10, 1), (10, 1), (24, 1)]
    assert [info.frame_range(*span) for span in spans] == frames
    for start, end in ((1.0, None), (2.0, 3.0), (None, 0.0)):
        with pytest.raises(DataError, match="lies outside"):
            info.frame_range(start, end)


def test_sliding_windows_do_not_read_ahead(tmp_path, monkeypatch):
    path, converted, convert = write(tmp_path / "a.mp4", pictures(50)), [], ToImage.__call__
    monkeypatch.setattr(ToImage, "__call__", lambda *args: converted.append(1) or convert(*args))
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
    path = tmp_path / "a.mkv"
    write(path, images, codec=codec, pix_fmt=pix_fmt, colour_range=colour_range, options=options)
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
    path = write(tmp_path / "a.mp4", pictures(1))
    plain = sequential(path)[0]
    display_matrix(path, matrix)
    np.testing.assert_array_equal(read_frames(path, 0, 1).frames[0], MATRICES[matrix](plain))


@pytest.mark.parametrize(("size", "opened"), [(24, 1), (96, 3)])
def test_small_videos_stay_decoded_until_the_file_changes(tmp_path, monkeypatch, size, opened):
    path, real, calls = write(tmp_path / "a.mp4", pictures(6, size, size)), FileReader.frames, []
    monkeypatch.setattr(FileReader, "frames", lambda self, *a, **b: calls.append(1) or real(self, *a, **b))
    whole = read_frames(path, 0, 6).frames.clone()
    assert open_video(path) is open_video(path)
    for _ in range(2):
        part = read_frames(path, 2, 3).frames
        assert torch.equal(part, whole[2:5])
        part.zero_()  # what is handed out is the caller's
    assert len(calls) == opened
    write(path, 255 - pictures(9, size, size))
    assert open_video(path).metadata.frames == 9
    assert not torch.equal(read_frames(path, 0, 6).frames, whole)


def test_the_readers_used_last_stay_as_far_as_their_frames_fit(monkeypatch):
    monkeypatch.setattr(reader, "CACHED_FRAMES", 10_000)
    cache = reader._ReaderCache()

    def use(name, frames):
        return cache.get((name,), lambda: SimpleNamespace(metadata=SimpleNamespace(frames=frames)))

    first = use("a", 4000)
    use("b", 4000)
    assert use("a", 1) is first
    use("c", 4000)  # in place of b, which was used before a
    assert list(cache.readers) == [("a",), ("c",)]
    use("long", 50_000)  # larger than all room: it stays alone
    assert list(cache.readers) == [("long",)]
    for number in range(200):
        use(number, 0)
    assert len(cache.readers) == 10_000 // 128
