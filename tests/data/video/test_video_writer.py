from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from ccl_cli.data.video.video_writer import write_clip
from tests.data.video.test_sound import tone

RATE = 16000
# Flat pictures whose brightness tells the frame's number.
FILM = np.linspace(20, 230, 20).astype(np.uint8)[:, None, None, None].repeat(48, 1).repeat(64, 2).repeat(3, 3)


def test_pictures_and_sound_come_back(tmp_path):
    sound = tone(0.8, rate=RATE)
    write_clip(tmp_path / "new" / "clip.mp4", FILM, 29.97, sound, RATE)
    with av.open(str(tmp_path / "new" / "clip.mp4")) as file:
        assert file.streams.video[0].average_rate == Fraction(2997, 100)
        assert file.streams.audio[0].rate == RATE
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert np.abs(pictures.astype(int) - FILM).max() < 12
    with av.open(str(tmp_path / "new" / "clip.mp4")) as file:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert 0 <= len(heard) - len(sound) < 1024  # whole AAC frames
    assert np.corrcoef(heard[2000:10000], sound[2000:10000])[0, 1] > 0.99
    write_clip(tmp_path / "mute.mp4", FILM, 25)
    with av.open(str(tmp_path / "mute.mp4")) as file:
        assert not file.streams.audio


def test_failure_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(path, FILM, 25)
    before = path.read_bytes()
    with pytest.raises((ValueError, av.FFmpegError)):
        write_clip(path, FILM, 25, tone(0.8), rate=7)  # no such sampling rate in AAC
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]
