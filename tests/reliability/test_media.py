"""Damaged and absurd media: each file is read or refused with a sentence, in bounded time and memory."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ccl_cli.data.checks.crash_proof import Lost, run_each
from ccl_cli.data.checks.findings import Effort
from ccl_cli.data.checks.inspect import Subject, look
from ccl_cli.data.checks.verify import verify
from ccl_cli.data.clips.dataset import Loaded, TrainingSet, training_loader
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.clips.windows import SlidingWindows, window_loader
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import DataError
from tests.data.clips.test_loader import children
from tests.reliability.damage import DAMAGES, FORMS, damaged, sequence_header, small_copy, with_field
from tests.reliability.reading import CLIP, Listens, Outcome, look_and_read_the_middle, read

# Of the reader's own time; and what counts as a hang, on a machine that others use too.
SECONDS, HANGS, MEGABYTES = 60.0, 900.0, 1500.0
CLIPS = (
    "vggsound/ZYc410CE4Rg_0_10000.mp4",
    "talking/bbaf2n.mpg",
    "kinetics/SOX5yA1l24A.mp4",
    "activitynet/v_GGSY1Qvo990.mp4",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(shared, tmp_path_factory) -> dict[str, bytes]:
    """A real clip, small, in every format."""
    folder = tmp_path_factory.mktemp("small")
    source = shared / "data/clips" / CLIPS[0]
    return {form: small_copy(source, folder / f"a.{form}", form).read_bytes() for form in FORMS}


def examine(files: Iterable[Path], tally, row: str, work=read) -> list[Outcome]:
    """Read each file in a process of its own kind; what was found, told as a figure and deleted."""
    outcomes = []
    for name, outcome in run_each(map(str, files), work, workers=1, seconds=HANGS):
        with tally.trial(row, Path(name).name):
            assert not isinstance(outcome, Lost), outcome.reason
            assert outcome.seconds < SECONDS
            assert outcome.megabytes < MEGABYTES, f"{outcome.megabytes:.0f} MB"
            assert outcome.read or len(outcome.reason) > 10
            outcomes.append(outcome)
        Path(name).unlink()
    readable = sum(outcome.read for outcome in outcomes)
    slowest = max(outcome.seconds for outcome in outcomes)
    memory = max(outcome.megabytes for outcome in outcomes)
    tally.figure(
        row,
        f"{readable:,} read, {len(outcomes) - readable:,} refused with a reason; "
        f"at most {slowest:.1f} s and {memory:.0f} MB a file",
    )
    return outcomes


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_clips_are_read_or_refused(small, shared, tmp_path, tally, trials, kind):
    """A trial is one file; its name tells its seed, the source and the format."""
    sources = {f"0.{form}": content for form, content in small.items()}

    def files() -> Iterator[Path]:
        for seed in trials(10, 2200):
            source, form = seed // len(FORMS) // 20 % len(CLIPS), list(FORMS)[seed % len(FORMS)]
            name = f"{source}.{form}"
            if name not in sources:
                path = small_copy(shared / "data/clips" / CLIPS[source], tmp_path / name, form)
                sources[name] = path.read_bytes()
            path = tmp_path / f"{seed}-{name}"
            path.write_bytes(damaged(sources[name], kind, seed))
            yield path

    examine(files(), tally, f"clips: {kind}")


def test_real_and_odd_files_are_read_or_refused_when_damaged(shared, tmp_path, tally, trials):
    """The files as they are, in all the formats that cameras and other software write."""
    originals = sorted(path for path in (shared / "data").glob("odd/*") if path.stat().st_size < 10**6)
    originals += sorted((shared / "data/clips").glob("[stw]*/*"))

    def files() -> Iterator[Path]:
        for seed in trials(4, 5 * len(originals)):
            original = originals[seed % len(originals)]
            path = tmp_path / f"{seed}-{original.name}"
            path.write_bytes(damaged(original.read_bytes(), list(DAMAGES)[seed % len(DAMAGES)], seed))
            yield path

    examine(files(), tally, "odd and real files damaged")


def absurd(small: dict[str, bytes]) -> dict[str, bytes]:
    """Headers that claim what cannot be."""
    mp4, wav, avi, mkv = small["mp4"], small["wav"], small["avi"], small["mkv"]
    size = struct_size = 20_000
    sides = with_field(with_field(mp4, b"avc1", 24, size, ">H"), b"avc1", 26, size, ">H")
    million = with_field(with_field(with_field(mp4, b"stsz", 4, 1), b"stsz", 8, 10**6), b"stsc", 12, 10**6)
    made = {
        "20,000 x 20,000.mp4": sides,
        "20,000 x 20,000.h264": sequence_header(small["h264"], size, size),
        "16,384 x 16,384.h264": sequence_header(small["h264"], 16_384, 16_384),
        "8,192 x 8,192.h264": sequence_header(small["h264"], 8192, 8192),
        "20,000 x 20,000.avi": with_field(
            with_field(avi, b"strf", 8, size, "<i"), b"strf", 12, struct_size, "<i"
        ),
        "no pixels.avi": with_field(with_field(avi, b"strf", 8, 0, "<i"), b"strf", 12, 0, "<i"),
        "upside down.avi": with_field(avi, b"strf", 12, -64, "<i"),
        "65,535 wide.mkv": mkv.replace(b"\xb0\x81\x60", b"\xb0\x81\xff"),
        "ten hours.mp4": with_field(with_field(mp4, b"mdhd", 16, 36_000 * 12_800), b"mvhd", 16, 36_000_000),
        "a century.mp4": with_field(with_field(mp4, b"mdhd", 16, 2**32 - 1), b"mvhd", 16, 2**32 - 1),
        "each frame ten hours.mp4": with_field(mp4, b"stts", 12, 36_000 * 12_800),
        "each frame for ever.mp4": with_field(mp4, b"stts", 12, 2**31 - 1),
        "each frame no time.mp4": with_field(mp4, b"stts", 12, 0),
        "a million frames a second.mp4": with_field(mp4, b"mdhd", 12, 512_000_000),
        "no time scale.mp4": with_field(mp4, b"mdhd", 12, 0),
        "a million frames.mp4": with_field(million, b"stts", 8, 10**6),
        "billions of frames.mp4": with_field(mp4, b"stsz", 8, 2**32 - 1),
        "frames of 2 GB.mp4": with_field(mp4, b"stsz", 12, 2**31 - 1),
        "frames elsewhere.mp4": with_field(mp4, b"stco", 8, 2**32 - 16),
        "begins before.mp4": with_field(mp4, b"elst", 12, 2**32 - 12_800 * 60),
        "begins in ten hours.mp4": with_field(mp4, b"elst", 12, 12_800 * 36_000),
        "plays no time.mp4": with_field(mp4, b"elst", 8, 0),
        "many edits.mp4": with_field(mp4, b"elst", 4, 2**31),
        "2 GHz.wav": with_field(wav, b"fmt ", 8, 2**31 - 1, "<I"),
        "8,001 Hz.wav": with_field(wav, b"fmt ", 8, 8001, "<I"),
        "44,101 Hz.wav": with_field(wav, b"fmt ", 8, 44_101, "<I"),
        "1 Hz.wav": with_field(wav, b"fmt ", 8, 1, "<I"),
        "0 Hz.wav": with_field(wav, b"fmt ", 8, 0, "<I"),
        "65,535 channels.wav": with_field(wav, b"fmt ", 6, 65_535, "<H"),
        "no channels.wav": with_field(wav, b"fmt ", 6, 0, "<H"),
        "4 GB.wav": with_field(wav, b"data", 0, 2**32 - 1, "<I"),
        "no frames a second.avi": with_field(avi, b"strh", 24, 0, "<I"),
        "a million frames a second.avi": with_field(avi, b"strh", 28, 25_000_000, "<I"),
        "billions of frames.avi": with_field(avi, b"strh", 36, 2**32 - 1, "<I"),
        "begins in years.avi": with_field(avi, b"strh", 32, 2**31 - 1, "<I"),
    }
    assert all(content not in small.values() for content in made.values())
    return made


def test_absurd_headers(small, tmp_path, tally):
    def files() -> Iterator[Path]:
        for name, content in absurd(small).items():
            (tmp_path / name).write_bytes(content)
            yield tmp_path / name

    examine(files(), tally, "absurd headers")


@pytest.mark.long
def test_ten_hours_and_the_largest_pictures(small, tmp_path, tally):
    """Real ones: 900,000 frames, and pictures of 8192x8192, the largest that are decoded."""

    def files() -> Iterator[Path]:
        yield ten_hours(tmp_path / "ten hours.mp4")
        yield largest(tmp_path / "largest.mp4")

    for outcome in examine(files(), tally, "ten hours; 8192x8192", look_and_read_the_middle):
        with tally.trial("ten hours; 8192x8192", outcome):
            assert outcome.read


def ten_hours(path: Path) -> Path:
    """One small picture 900,000 times."""
    first = path.with_name("first.mp4")
    encode(first, [np.zeros((32, 32, 3), np.uint8)])
    with av.open(str(first)) as given, av.open(str(path), "w") as made:
        video = made.add_stream_from_template(given.streams.video[0])
        data = bytes(next(packet for packet in given.demux(video=0) if packet.size))
        for number in range(10 * 3600 * 25):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = video, Fraction(1, 25), True
            packet.pts = packet.dts = number
            packet.duration = 1
            made.mux(packet)
    first.unlink()
    return path


def largest(path: Path) -> Path:
    return encode(path, [np.full((8192, 8192, 3), 20 * number, np.uint8) for number in range(3)])


def encode(path: Path, images: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.height, video.width = images[0].shape[:2]
        video.codec_context.thread_count = 1
        for image in images:
            file.mux(video.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        file.mux(video.encode(None))
    return path


def mixed(small: dict[str, bytes], folder: Path, seed: int, count: int) -> Manifest:
    """A data set of which about half the files are damaged."""
    rng = np.random.default_rng(seed)
    forms = [form for form in FORMS if form not in ("wav", "ogg")]
    videos = []
    for row in range(count):
        form, kind = forms[rng.integers(len(forms))], list(DAMAGES)[rng.integers(len(DAMAGES))]
        content = small[form]
        if row % 2:
            content = damaged(content, kind, 10_000 * seed + row)
        path = folder / f"{row}.{form}"
        path.write_bytes(content + bytes([row]))  # no two are the same file
        videos.append(Video(str(row), path, row % 2, "train"))
    return Manifest("mixed", ("whole", "damaged"), tuple(videos))


def test_counts_of_mixed_folders_agree(small, tmp_path, tally, trials, caplog):
    """`verify`, an epoch of training, and evaluation call the same files unreadable; nothing is counted twice."""
    caplog.set_level(logging.ERROR)
    for seed in trials(1, 8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        manifest = mixed(small, folder, seed, 40)
        with tally.trial("folders of whole and damaged files", seed):
            faults = {}
            for row, video in enumerate(manifest.videos):
                try:
                    faults[row] = look(Subject(str(video.path))).fault
                except DataError as error:
                    faults[row] = error.message
            refused = {row for row, fault in faults.items() if fault}
            report = verify(manifest, Effort(2, HANGS), frames=1)
            corrupt = {int(each.id) for each in report.problems if each.problem == "corrupt"}
            assert refused <= corrupt <= {row for row in range(40) if row % 2}
            assert report.counts()["train"]["videos"] == 40
            batches = epoch(manifest.videos)
            unreadable = {row for loaded in batches for row in loaded.unreadable}
            seen = {row for loaded in batches for row in loaded.batch.rows.tolist()}
            assert seen | unreadable == set(range(40))
            assert not seen & unreadable
            assert refused <= unreadable <= {row for row in range(40) if row % 2}
            windows = SlidingWindows(manifest.videos, CLIP, stride=8, chunk=8)
            chunks = list(window_loader(windows, workers=2, pin_memory=False))
            finished = Counter(row for chunk in chunks for row in chunk.finished)
            assert finished == Counter(range(40))
            empty = {row for chunk in chunks for row in chunk.unreadable}
            viewed = {row for chunk in chunks for row in chunk.rows.tolist()}
            assert empty | viewed == set(range(40))
            assert not empty & viewed
            assert empty <= unreadable


def epoch(videos: tuple[Video, ...]) -> list[Loaded]:
    dataset = TrainingSet(videos, CLIP, {"audio": Listens()}, 0)
    return list(training_loader(dataset, EpochSampler(len(videos), 4, 1), workers=2, pin_memory=False))


def test_killed_readers_of_verify_are_replaced(small, tmp_path, tally, trials, caplog, monkeypatch):
    """SIGKILL at a moment drawn from the seed: the same findings as without."""
    caplog.set_level(logging.ERROR)
    manifest = mixed({form: small[form] for form in FORMS}, tmp_path, 0, 64)
    clean = {(each.id, each.problem) for each in verify(manifest, Effort(2, HANGS), frames=1).problems}
    for seed in trials(1, 20):
        with tally.trial("readers of `ccl data verify` killed", seed):
            monkeypatch.setenv("CCL_HOME", str(tmp_path / f"cache-{seed}"))  # nothing is known yet
            done = threading.Event()
            killer = threading.Thread(target=kill_one, args=(done, seed))
            killer.start()
            try:
                problems = verify(manifest, Effort(2, HANGS), frames=1).problems
            finally:
                done.set()
                killer.join()
            assert {(each.id, each.problem) for each in problems} == clean, seed


def kill_one(done: threading.Event, seed: int) -> None:
    """One process of those that read, soon after the first has started."""
    rng = np.random.default_rng(seed)
    while not done.wait(0.05):
        if children():
            done.wait(float(rng.random()))
            if readers := children():
                os.kill(int(rng.choice(readers)), signal.SIGKILL)
            return
