"""Damaged and absurd media: each file is read or refused with a sentence, by all readers alike, in bounded time and memory."""

from __future__ import annotations

import logging
import random
import struct
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from ccl_cli.config.recipe import Clip, Evaluation
from ccl_cli.data.checks.check import check
from ccl_cli.data.checks.findings import Effort
from ccl_cli.data.checks.inspect import Subject, decode, inspect
from ccl_cli.data.clips.dataset import LoadedBatch, TrainingClips
from ccl_cli.data.clips.epoch_sampler import Draw
from ccl_cli.data.clips.evaluation_clips import EvaluationClips
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.video.reader import read_frames
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import DataError
from tests.conftest import moving_stripes
from tests.data import media
from tests.reliability.bounds import bounded
from tests.reliability.damage import damage
from tests.reliability.processes import seeds

CLIP = Clip(frames=8, size=48, short_side=56)
# Suffix: codecs of the picture and of the sound.
FORMS = {
    "mp4": ("libx264", "aac"),
    "mkv": ("libx264", "aac"),
    "webm": ("libvpx", "libopus"),
    "avi": ("mpeg4", "libmp3lame"),
    "mpg": ("mpeg2video", "mp2"),
    "ts": ("libx264", "aac"),
    "h264": ("libx264", None),
    "wav": (None, "pcm_s16le"),
}
PICTURES = list(FORMS)[:-1]


class SoundTeacher:
    """Ten seconds of sound at 32 kHz, as the audio teachers hear it, and its loudest sample."""

    shape: tuple[int, ...] = (1,)
    dtype = torch.float32

    def __call__(self, window) -> torch.Tensor | None:
        sound = window.audio(32000, 10.0)
        if sound is None:
            return None
        assert len(sound) <= 320_000
        assert bool((sound.abs() <= 1).all())
        return sound.abs().max()[None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """A small clip in every format."""
    folder, frames = tmp_path_factory.mktemp("whole"), moving_stripes(np.random.default_rng(0), 0, 20, 64)
    tone = np.sin(np.arange(32_000) / 9).astype(np.float32) / 2
    for suffix, (codec, sound_codec) in FORMS.items():
        images, sound = frames if codec else None, tone if sound_codec else None
        codecs = {"codec": codec, "sound_codec": sound_codec, "sound_rate": 48_000}
        media.write(folder / f"a.{suffix}", images, sound=sound, **codecs)
    return {suffix: (folder / f"a.{suffix}").read_bytes() for suffix in FORMS}


def trained_on(video: Video, preprocess: dict) -> LoadedBatch | DataError:
    try:
        return TrainingClips([video], CLIP, preprocess, 0)[[Draw(0, 0, 0)]]
    except DataError as error:
        return error


def read(path: Path) -> bool:
    """Read a file in every way; whether training read it."""
    faults = []
    for reading in (
        lambda: inspect(Subject(str(path))).fault,
        lambda: decode(Subject(str(path))),
        lambda: read_frames(path, 0, 8, short_side=56) and None,
    ):
        try:
            faults.append(reading())
        except DataError as error:  # FFmpeg calls the end of some files an error of the disk
            faults.append(error.message)
    video = Video("a", path, 0, "train")
    chunks = list(EvaluationClips([video], CLIP, Evaluation(stride=8), chunk=4))
    unreadable = [reason for chunk in chunks for reason in chunk.unreadable.values()]
    assert [row for chunk in chunks for row in chunk.finished] == [0], "counted other than once"
    assert bool(unreadable) == (not sum(len(chunk.windows) for chunk in chunks))
    assert all(len(reason) > 10 and "Error: " not in reason for reason in unreadable)
    loaded = trained_on(video, {"audio:a": SoundTeacher()})
    if isinstance(loaded, DataError):
        assert any(faults), f"only training cannot read it: {loaded.message}"
        return False
    assert loaded.batch.video.shape == (1, 3, 8, 48, 48)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize("extent", [0, 600])  # damaged anywhere, or in the first bytes, where headers are
@seeds(2, 150)
def test_a_damaged_clip_is_read_or_refused(whole, tmp_path, suffix, extent, seed):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(whole[suffix])
    assert read(path) == (suffix in PICTURES)
    path.write_bytes(damage(whole[suffix], random.Random(f"{suffix} {extent} {seed}"), extent))
    with bounded(60):
        read(path)


@pytest.mark.slow
@seeds(4, 100)
def test_a_damaged_file_of_a_camera_is_read_or_refused(shared, tmp_path, seed):
    originals = sorted(path for path in (shared / "data/odd").iterdir() if path.stat().st_size < 10**6)
    original = originals[seed % len(originals)]
    path = tmp_path / original.name
    path.write_bytes(damage(original.read_bytes(), random.Random(seed)))
    with bounded(60):
        read(path)


# Box or chunk, place, value, and form of a number that cannot be.
ABSURD = {
    "20,000 wide.mp4": (b"avc1", 24, 20_000, ">H"),
    "ten hours.mp4": (b"mdhd", 16, 36_000 * 12_800, ">I"),
    "each frame ten hours.mp4": (b"stts", 12, 36_000 * 12_800, ">I"),
    "each frame no time.mp4": (b"stts", 12, 0, ">I"),
    "a million frames a second.mp4": (b"mdhd", 12, 512_000_000, ">I"),
    "no time scale.mp4": (b"mdhd", 12, 0, ">I"),
    "billions of frames.mp4": (b"stsz", 8, 2**32 - 1, ">I"),
    "frames of 2 GB.mp4": (b"stsz", 12, 2**31 - 1, ">I"),
    "frames elsewhere.mp4": (b"stco", 8, 2**32 - 16, ">I"),
    "begins before.mp4": (b"elst", 12, 2**32 - 12_800 * 60, ">I"),
    "begins in ten hours.mp4": (b"elst", 12, 12_800 * 36_000, ">I"),
    "plays no time.mp4": (b"elst", 8, 0, ">I"),
    "2 GHz.wav": (b"fmt ", 8, 2**31 - 1, "<I"),
    "8,001 Hz.wav": (b"fmt ", 8, 8001, "<I"),
    "1 Hz.wav": (b"fmt ", 8, 1, "<I"),
    "0 Hz.wav": (b"fmt ", 8, 0, "<I"),
    "65,535 channels.wav": (b"fmt ", 6, 65_535, "<H"),
    "no channels.wav": (b"fmt ", 6, 0, "<H"),
    "4 GB.wav": (b"data", 0, 2**32 - 1, "<I"),
    "20,000 wide.avi": (b"strf", 8, 20_000, "<i"),
    "no pixels.avi": (b"strf", 8, 0, "<i"),
    "no frames a second.avi": (b"strh", 24, 0, "<I"),
    "a million frames a second.avi": (b"strh", 28, 25_000_000, "<I"),
    "billions of frames.avi": (b"strh", 36, 2**32 - 1, "<I"),
    "begins in years.avi": (b"strh", 32, 2**31 - 1, "<I"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ABSURD)
def test_an_absurd_header_costs_no_more_than_its_file(whole, tmp_path, name):
    content = bytearray(whole[name.rpartition(".")[2]])
    after, offset, value, form = ABSURD[name]
    struct.pack_into(form, content, content.index(after) + len(after) + offset, value)
    (tmp_path / name).write_bytes(content)
    with bounded(60):
        read(tmp_path / name)


@pytest.mark.long
def test_ten_hours_take_no_more_memory_than_minutes(tmp_path):
    """One small picture 900,000 times."""
    write_clip(tmp_path / "one.mp4", np.zeros((1, 32, 32, 3), np.uint8), 25)
    with av.open(str(tmp_path / "one.mp4")) as given, av.open(str(tmp_path / "long.mp4"), "w") as made:
        video = made.add_stream_from_template(given.streams.video[0])
        data = bytes(next(packet for packet in given.demux(video=0) if packet.size))
        for number in range(10 * 3600 * 25):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = video, Fraction(1, 25), True
            packet.pts, packet.dts, packet.duration = number, number, 1
            made.mux(packet)
    with bounded(60, megabytes=500):
        frames = inspect(Subject(str(tmp_path / "long.mp4"))).frames
        assert frames == 900_000
        read_frames(tmp_path / "long.mp4", frames // 2, 8, short_side=56)


@pytest.mark.slow
@seeds(1, 8)
def test_all_readers_call_the_same_files_unreadable(whole, tmp_path, caplog, seed):
    """Verification, training and evaluation of a folder in which every other file is damaged."""
    caplog.set_level(logging.ERROR)
    rng, videos = random.Random(seed), []
    for row in range(40):
        suffix = rng.choice(PICTURES)
        content = damage(whole[suffix], rng) if row % 2 else whole[suffix]
        (tmp_path / f"{row}.{suffix}").write_bytes(content + bytes([row]))  # no two are the same file
        videos.append(Video(str(row), tmp_path / f"{row}.{suffix}", row % 2, "train"))
    report = check(Manifest("mixed", ("a", "b"), tuple(videos)), Effort(2, 300.0), frames=1)
    corrupt = {int(each.id) for each in report.problems if each.problem == "corrupt"}
    assert report.splits["train"]["videos"] == 40
    chunks = list(EvaluationClips(videos, CLIP, Evaluation(stride=8), chunk=8))
    assert Counter(row for chunk in chunks for row in chunk.finished) == Counter(range(40))
    unreadable = {row for chunk in chunks for row in chunk.unreadable}
    untrainable = {row for row, video in enumerate(videos) if isinstance(trained_on(video, {}), DataError)}
    odd = set(range(1, 40, 2))
    assert unreadable <= untrainable <= corrupt | unreadable | odd
    assert corrupt | unreadable | untrainable <= odd
