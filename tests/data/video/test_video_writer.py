from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from ccl_cli.data.video.video_writer import write_clip

RATE = 16000


def film(frames: int = 20, height: int = 48, width: int = 64) -> np.ndarray:
    """Flat pictures whose brightness tells the frame's number."""
    values = np.linspace(20, 230, frames).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (frames, height, width, 3)).copy()


def tone(seconds: float = 0.8) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_pictures_and_sound_come_back(tmp_path):
    write_clip(tmp_path / "new" / "clip.mp4", film(), 25, tone(), RATE)
    with av.open(str(tmp_path / "new" / "clip.mp4")) as file:
        assert file.streams.video[0].average_rate == 25
        assert file.streams.audio[0].rate == RATE
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert pictures.shape == (20, 48, 64, 3)
    assert np.abs(pictures.astype(int) - film().astype(int)).max() < 12
    with av.open(str(tmp_path / "new" / "clip.mp4")) as file:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert 0 <= len(sound) - len(tone()) < 1024  # whole AAC frames
    middle = sound[2000:10000]
    spectrum = np.abs(np.fft.rfft(middle))
    assert np.argmax(spectrum) * RATE / len(middle) == pytest.approx(440, abs=2)
    assert middle.std() == pytest.approx(tone()[2000:10000].std(), rel=0.1)


def test_no_sound_writes_no_track(tmp_path):
    write_clip(tmp_path / "mute.mp4", film(), 29.97)
    with av.open(str(tmp_path / "mute.mp4")) as file:
        assert not file.streams.audio
        assert file.streams.video[0].average_rate == Fraction(2997, 100)
        assert sum(1 for _ in file.decode(video=0)) == 20


@pytest.mark.parametrize(
    ("frames", "sound"),
    [
        (film()[..., 0], None),
        (film()[:0], None),
        (film().astype(np.float32), None),
        (film(height=47), None),
        (film(width=63), None),
        (film(), tone().astype(np.float64)),
        (film(), tone()[None]),
    ],
)
def test_unusable_input_writes_nothing(tmp_path, frames, sound):
    with pytest.raises(ValueError, match="must be"):
        write_clip(tmp_path / "bad.mp4", frames, 25, sound, RATE)
    assert not list(tmp_path.iterdir())


def test_failure_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(path, film(), 25)
    before = path.read_bytes()
    with pytest.raises((ValueError, av.FFmpegError)):
        write_clip(path, film(), 25, tone(), rate=7)  # no such sampling rate in AAC
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]
