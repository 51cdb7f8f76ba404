from __future__ import annotations

from collections import Counter
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from ccl_cli.data.checks import inspect
from ccl_cli.data.video import audio_decoder
from ccl_cli.data.video.file_reader import FileReader
from ccl_cli.data.video.reader import open_video, read_frames
from ccl_cli.data.video.sound import read_audio
from ccl_cli.errors import DataError
from tests.data.media import damage_sound, pictures, write

RATE = 32000


def tone(seconds: float, hertz: float = 440, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


CONTAINERS = {
    "a.mp4": {"sound_codec": "aac"},
    "b.mkv": {"sound_codec": "libopus"},
    "c.avi": {"sound_codec": "libmp3lame", "codec": "mpeg4"},
    "d.mpg": {"sound_codec": "mp2", "codec": "mpeg1video"},
    "e.ts": {"sound_codec": "aac"},
    "f.mov": {"sound_codec": "pcm_s16le", "b_frames": 2},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_sound_and_frames_share_one_clock(tmp_path, name):
    """Dark and silent but for one white frame and a tone as long as it lasts."""
    images, beep = np.zeros((100, 64, 96, 3), np.uint8), np.zeros(4 * 48000, np.float32)
    images[61], beep[61 * 1920 : 62 * 1920] = 255, tone(0.04, 1000, 48000)
    path = write(tmp_path / name, images, sound=beep, sound_rate=48000, **CONTAINERS[name])
    info = open_video(path).metadata
    brightness = read_frames(path, 0, info.frames).frames.float().mean((1, 2, 3))
    heard = read_audio(path, centre=2.0, seconds=60, rate=RATE).samples.abs()
    energy = torch.nn.functional.avg_pool1d(heard[None], 1280, 1)[0]
    start = int(energy.argmax()) / RATE + info.audio.start
    assert start == pytest.approx(info.time(int(brightness.argmax())), abs=0.02)


def test_a_stretch_is_cut_from_the_track(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40 * 16000).astype(np.float32)
    path = write(tmp_path / "a.wav", sound=noise, sound_codec="pcm_f32le", sound_rate=16000)
    for centre, begin in ((20.0, 19.0), (0.2, 0.0), (39.9, 38.0), (-5.0, 0.0), (99.0, 38.0), (30.5, 29.5)):
        sound = read_audio(path, centre=centre, seconds=2.0, rate=16000)
        at = round(begin * 16000)
        np.testing.assert_allclose(sound.samples, noise[at : at + 32000], atol=1e-6)
        assert not sound.whole


def test_a_short_track_is_whole_whatever_the_window(tmp_path):
    path = write(tmp_path / "a.mp4", pictures(50), sound=tone(2.0))
    one, other = (read_audio(path, centre=centre, seconds=10.0, rate=RATE) for centre in (0.1, 5.0))
    assert torch.equal(one.samples, other.samples)
    assert one.whole
    assert len(one.samples) == pytest.approx(2 * RATE, abs=0.04 * RATE)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "libopus"), ("a.ogg", "libopus")])
def test_seeking_into_a_long_track_changes_nothing(tmp_path, monkeypatch, name, codec):
    sweep = np.sin(np.cumsum(np.linspace(0.01, 0.3, 30 * 48000))).astype(np.float32) / 2
    path = write(tmp_path / name, sound=sweep, sound_codec=codec, sound_rate=48000)
    sought = read_audio(path, centre=25, seconds=2, rate=48000).samples
    monkeypatch.setattr(audio_decoder, "_WORTH_SEEKING", 1e9)
    from_start = read_audio(path, centre=25, seconds=2, rate=48000).samples
    # Matroska's clock ticks in milliseconds, 48 samples: a packet that a seek finds is placed no finer.
    shifts = range(-48, 49) if name == "a.mkv" else [0]
    middle = slice(100, -100)
    assert min((sought.roll(by) - from_start)[middle].abs().max() for by in shifts) < 1e-3
    assert from_start.abs().max() > 0.3


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_every_sample_format_is_scaled_to_one(tmp_path, codec):
    path = write(tmp_path / "a.wav", sound=tone(1.0), sound_codec=codec)
    samples = read_audio(path, centre=0.5, seconds=2, rate=RATE).samples
    np.testing.assert_allclose(samples, tone(1.0), atol=0.01 if codec == "pcm_u8" else 1e-4)


def stereo(path, left, right, codec="pcm_s16le"):
    with av.open(str(path), "w") as file:
        audio = file.add_stream(codec, rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([left, right]).astype(np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        resampler = av.AudioResampler(format=audio.codec_context.format, layout="stereo", rate=RATE)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(audio.encode(part))
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.wav", "pcm_s16le"), ("a.mp4", "aac")])
def test_where_the_channels_cancel_the_loudest_is_heard(tmp_path, name, codec):
    path = stereo(tmp_path / name, tone(1.0), -tone(1.0) * 1.15, codec)
    sound = read_audio(path, centre=0.5, seconds=1, rate=RATE)
    middle = slice(RATE // 4, -RATE // 4)
    assert sound.samples[middle].abs().max() == pytest.approx(0.575, abs=0.02)
    assert np.corrcoef(sound.samples[middle], tone(1.0)[: len(sound.samples)][middle])[0, 1] < -0.99
    assert inspect._sound(open_video(path).metadata, inspect.Subject(str(path))) == sound.state == "present"


def test_channels_that_do_not_cancel_are_averaged(tmp_path):
    for right in (tone(1.0, 700), 0 * tone(1.0), -0.5 * tone(1.0)):
        path = stereo(tmp_path / "a.wav", tone(1.0), right)
        heard = read_audio(path, centre=0.5, seconds=1, rate=RATE).samples
        np.testing.assert_allclose(heard, (tone(1.0) + right) / 2, atol=1e-4)
    quiet = np.full(RATE, 1.5e-4, np.float32)
    for left, state in ((quiet, "present"), (0 * quiet, "silent")):  # the mean alone is silent in both
        path = stereo(tmp_path / "a.wav", left, 0 * quiet, "pcm_f32le")
        assert read_audio(path, centre=0.5, seconds=1, rate=RATE).state == state


@pytest.mark.parametrize(("native", "rate"), [(44100, 32000), (8000, 32000), (48000, 16000)])
def test_resampling_keeps_length_and_pitch(tmp_path, native, rate):
    path = write(tmp_path / "a.wav", sound=tone(2.0, 500, native), sound_codec="pcm_s16le", sound_rate=native)
    samples = read_audio(path, centre=1.0, seconds=1.0, rate=rate).samples
    assert (samples.dtype, len(samples)) == (torch.float32, rate)
    assert int(torch.fft.rfft(samples).abs().argmax()) == 500
    assert samples[rate // 10 : -rate // 10].abs().max() == pytest.approx(0.5, abs=0.01)


def test_silence_is_judged_over_the_stretch_alone(tmp_path):
    track = np.concatenate([tone(2.0), np.zeros(4 * RATE, np.float32)])
    path = write(tmp_path / "a.wav", sound=track, sound_codec="pcm_s16le")
    for options, state in (
        ({"centre": 1, "seconds": 1}, "present"),
        ({"centre": 4, "seconds": 1}, "silent"),
        ({"centre": 4, "seconds": 1, "start": 0.5, "end": 1.5}, "present"),
        ({"centre": 1, "seconds": 9, "start": 2.5}, "silent"),
        ({"centre": 1, "seconds": 9, "start": 7}, "silent"),  # behind the track
    ):
        assert read_audio(path, rate=RATE, **options).state == state


def test_a_gap_in_the_track_keeps_its_length(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        audio = file.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for start in (0.0, 2.5):  # 1 s of sound each
            frame = av.AudioFrame.from_ndarray((tone(1.0) * 32767).astype(np.int16)[None], "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, round(start * RATE), Fraction(1, RATE)
            file.mux(audio.encode(frame))
        file.mux(audio.encode(None))
    heard = read_audio(path, centre=2, seconds=10, rate=RATE).samples.abs()
    assert len(heard) == pytest.approx(3.5 * RATE, abs=0.01 * RATE)
    assert heard[round(1.05 * RATE) : round(2.45 * RATE)].max() == 0
    assert heard[round(2.55 * RATE) : round(3.45 * RATE)].max() > 0.4


def renamed(path):
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_ZZZZ"))


@pytest.mark.parametrize(
    ("name", "codec", "harm", "reason"),
    [("a.mkv", "libopus", renamed, "in a format that"), ("a.mp4", "aac", damage_sound, "cannot be decoded")],
)
def test_a_track_that_cannot_be_decoded_is_an_error_not_silence(tmp_path, name, codec, harm, reason):
    sound = {"sound": tone(1.0, rate=48000), "sound_codec": codec, "sound_rate": 48000}
    path = write(tmp_path / name, pictures(25), **sound)
    harm(path)
    with pytest.raises(DataError, match=reason):
        read_audio(path, centre=0.5, seconds=1, rate=RATE)
    assert len(read_frames(path, 0, 4).frames) == 4  # the picture is none the worse for it


@pytest.mark.parametrize("limit", ["MAX_SAMPLES", "MAX_RATE"])
def test_an_absurd_track_is_refused_before_memory_is_taken(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(audio_decoder, limit, 1000)
    with pytest.raises(DataError, match="too many"):
        read_audio(write(tmp_path / "a.mp4", sound=tone(1.0)), centre=0.5, seconds=1, rate=RATE)


@pytest.mark.slow
def test_real_tracks_are_counted_as_their_makers_count_them(shared):
    paths = sorted((shared / "data/fightsurv").glob("*/*.mp4"))
    states = Counter(read_audio(path, centre=1, seconds=10, rate=RATE).state for path in paths)
    assert states == {"present": 155, "silent": 96, "no track": 49}


@pytest.mark.parametrize(("seconds", "decoded"), [(1.0, 1), (3.0, 2)])
def test_short_sound_stays_decoded_and_is_the_callers_own(tmp_path, monkeypatch, seconds, decoded):
    path, real, calls = tmp_path / "a.wav", FileReader.audio, []
    write(path, sound=tone(seconds), sound_codec="pcm_s16le")
    monkeypatch.setattr(FileReader, "audio", lambda *args: calls.append(1) or real(*args))
    first = read_audio(path, centre=0.5, seconds=5, rate=16000).samples
    kept = first.clone()
    first.zero_()
    assert torch.equal(read_audio(path, centre=0.2, seconds=5, rate=16000).samples, kept)
    assert len(calls) == decoded
    write(path, sound=tone(seconds + 0.1) / 2, sound_codec="pcm_s16le")
    assert read_audio(path, centre=0.5, seconds=5, rate=16000).samples.max() < 0.3
