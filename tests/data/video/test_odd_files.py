"""Real files of odd kinds, and files damaged on purpose: each is read right or refused with a sentence."""

from __future__ import annotations

import errno
import os

import av
import numpy as np
import pytest

from ccl_cli.data.video import file_metadata
from ccl_cli.data.video.reader import open_video, read_frames
from ccl_cli.data.video.sound import read_audio
from ccl_cli.errors import DataError, SystemSetupError
from tests.data.media import iter_windows, looped, pictures, sequential, write
from tests.data.video.test_sound import tone

# File: frames, height and width as shown, and what its sound is.
READABLE = {
    "av1_video.mkv": (125, 360, 640, "no track"),
    "flipping_a_pancake.mkv": (310, 240, 426, "present"),
    "h264_10bits.mp4": (30, 200, 200, "no track"),
    "nasa_13013.mp4": (390, 270, 480, "present"),  # its second, larger video stream
    "nasa_13013_rotated.mp4": (17, 480, 270, "no track"),
    "rotated_90.mov": (3, 568, 320, "no track"),
    "test_non_zero_start.mp4": (12, 112, 200, "no track"),
    "testsrc2_mpeg4.mp4": (1, 64, 64, "no track"),
    "testsrc2_odd_height_and_width_vp9.mp4": (25, 241, 321, "no track"),
    "testsrc2_vp8.webm": (30, 720, 1280, "no track"),
}


@pytest.mark.parametrize("name", READABLE)
def test_odd_files_are_read_like_a_sequential_decode(shared, name):
    path = shared / "data/odd" / name
    frames, height, width, sound = READABLE[name]
    assert read_frames(path, 0, 1, short_side=10_000).frames.shape == (1, height, width, 3)
    reference = sequential(path, 60)
    info = open_video(path).metadata
    assert info.frames == len(reference) == frames
    assert info.time(0) == pytest.approx(0, abs=0.01)  # some FFmpegs count from where Opus is primed
    for first in sorted({0, frames // 3, frames // 2, frames - 1}):
        clip = read_frames(path, first, 16, short_side=60)
        np.testing.assert_array_equal(clip.frames, looped(reference, first, 16))
    assert read_audio(path, centre=0.5, seconds=5, rate=16000).state == sound
    if track := info.audio:  # one starts late and ends early
        whole = read_audio(path, centre=0, seconds=1e6, rate=16000).samples
        assert len(whole) == pytest.approx((track.end - track.start) * 16000, abs=1)


def test_a_late_start_counts_from_zero(tmp_path):
    times = [60_000 + 40 * k for k in range(20)]
    path = write(tmp_path / "a.mkv", pictures(20), times=times, gop=5)
    info = open_video(path).metadata
    assert [info.time(0), info.time(10)] == pytest.approx([0, 0.4])
    clips = list(iter_windows(path, 4, 4, start=0.4))
    assert [clip.end for clip in clips] == pytest.approx([0.56, 0.72, 0.8])
    np.testing.assert_array_equal(clips[0].frames, sequential(path)[10:14])


def with_cover(path):
    with av.open(str(path), "w") as file:
        audio = file.add_stream("libmp3lame", rate=32000, layout="mono")
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        file.mux(cover.encode(av.VideoFrame.from_ndarray(pictures(1)[0], "rgb24")))
        frame = av.AudioFrame.from_ndarray(tone(1.0)[None], "fltp", "mono")
        frame.sample_rate = 32000
        file.mux([*audio.encode(frame), *audio.encode(None)])
    return path


def test_sound_files_are_heard_but_not_seen(shared, tmp_path):
    for path in (*(shared / "data/odd").glob("*.wav"), with_cover(tmp_path / "a.mp3")):
        assert read_audio(path, centre=0.5, seconds=0.5, rate=16000).state == "present"
        with pytest.raises(DataError, match="has no picture, only sound"):
            open_video(path).metadata.frame_range()


REFUSED = {
    "empty.mp4": (b"", "is empty"),
    "text.mp4": (b"This is not a video, whatever its name says.\n" * 50, "is not a complete media file"),
    "noise.avi": (np.random.default_rng(0).bytes(5000), "is not a complete media file"),
    "list.mp4": (b"#EXTM3U\n#EXTINF:9,\nother.ts\n#EXT-X-ENDLIST\n", "is not a complete media file"),
    "subtitles.mkv": (b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n", "holds neither picture nor sound"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_video_is_refused_with_a_sentence(tmp_path, name, capfd):
    content, reason = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"'.*{name}' {reason}"):
        open_video(path)
    assert capfd.readouterr() == ("", "")


def test_what_is_no_file_is_refused_with_a_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, reason in (
        ("absent.mp4", "No such file"),
        ("", "is not a file"),
        ("pipe.mp4", "is not a file"),
    ):
        with pytest.raises(DataError, match=reason):
            open_video(tmp_path / name)


def test_a_codec_nobody_knows_is_refused_with_a_sentence(tmp_path):
    path = write(tmp_path / "a.mp4", pictures(5))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(DataError, match=r"video stream of .* is in a format that cannot be decoded"):
        open_video(path)


@pytest.mark.parametrize(("limit", "value"), [("MAX_SIDE", 90), ("MAX_PIXELS", 6000)])
def test_frames_of_absurd_size_are_refused_before_memory_is_taken(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(file_metadata, limit, value)
    with pytest.raises(DataError, match="claims frames of 96x64 pixels"):
        open_video(write(tmp_path / "a.mp4", pictures(5)))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EMFILE, "full"), SystemSetupError),
        (av.error.OSError(errno.EMFILE, "full"), SystemSetupError),
        (MemoryError("full"), SystemSetupError),
        (av.error.MemoryError(errno.ENOMEM, "full"), DataError),  # a damaged header may claim any amount
    ],
)
def test_an_error_of_the_machine_is_not_the_videos(tmp_path, monkeypatch, error, kind):
    def fails(*args, **options):
        raise error

    (tmp_path / "a.mp4").write_bytes(b"a")
    monkeypatch.setattr(av, "open", fails)
    with pytest.raises(kind, match=r"a\.mp4' .*: (MemoryError: )?full\."):
        open_video(tmp_path / "a.mp4")


FORMATS = {
    "a.avi": {"codec": "mpeg4"},
    "b.avi": {"codec": "mpeg4", "b_frames": 2},
    "c.mkv": {"b_frames": 2},
    "d.mpg": {"codec": "mpeg1video", "sound_codec": "mp2"},
    "e.ts": {},
    "g.mp4": {"faststart": True},
}


@pytest.mark.parametrize("share", [0.6, 0.9])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_off_yields_what_is_left_of_it(tmp_path, name, share):
    path = write(tmp_path / name, pictures(40), sound=tone(1.6), **FORMATS[name])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    reference = sequential(path)
    firsts = [*range(0, len(reference) - 8, 8), max(len(reference) - 8, 0)]
    for window, first in zip(iter_windows(path, 8, 8), firsts, strict=True):
        np.testing.assert_array_equal(window.frames, looped(reference, first, 8))
    for first in range(0, len(reference), 5):
        np.testing.assert_array_equal(read_frames(path, first, 8).frames, looped(reference, first, 8))
    for first in range(len(reference), open_video(path).metadata.frames):
        with pytest.raises(DataError, match="can be decoded"):
            read_frames(path, first, 8)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_damage_in_the_middle_costs_no_more_than_frames(tmp_path, name):
    path = write(tmp_path / name, pictures(40), codec="mpeg4" if name == "a.avi" else "libx264", gop=10)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        for packet in packets[12:18]:
            content[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    path.write_bytes(content)
    for first in (0, 30):
        assert read_frames(path, first, 8).frames.shape == (8, 64, 96, 3)
    assert len(list(iter_windows(path, 8, 8))) >= 3
