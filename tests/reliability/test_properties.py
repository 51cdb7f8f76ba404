"""What must hold whatever the numbers and names: losses at any scale, manifests, tables, windows and times."""

from __future__ import annotations

import csv
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ccl_cli.data.manifest import SPLITS, Manifest, Video
from ccl_cli.data.sources import csv as csv_source
from ccl_cli.data.video.metadata import VideoMetadata
from ccl_cli.data.video.reader import open_video
from ccl_cli.data.video.storage import Member, Packed
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import CclError
from tests.data.media import iter_windows
from tests.methods.distilling import VARIANTS, WITH_BANKS, Example, build, run

# Fixtures of folders may be shared by the examples: each writes its files anew.
shared_fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


POWERS = st.sampled_from([-30, -12, -6, -3, 0, 0, 3, 6, 9, 15])


@pytest.mark.parametrize("name", [*VARIANTS, *WITH_BANKS])
@settings(max_examples=6)
@given(
    seed=st.integers(0, 2**20),
    rows=st.integers(1, 8),
    absent=st.lists(st.integers(0, 7), max_size=8),
    student=POWERS,
    teacher=POWERS,
    equal=st.sampled_from([None, 0.0, 1.0]),
    one_class=st.booleans(),
)
def test_every_method_is_finite_at_any_scale(name, seed, rows, absent, student, teacher, equal, one_class):
    """Values and gradients, also of rows that are equal or zero, in two steps: banks remember the first."""
    example = Example(rows, (6, 9), ([row % rows for row in absent], ()), dtype=torch.float32, seed=seed)
    if equal is not None:
        example.feature[: rows // 2] = example.feature[0] * equal
        example.teachers[0][rows // 2 :] = example.teachers[0][-1] * equal
    if one_class:
        example.labels[:] = 1
    if name == "cckd bilinear":  # its products of four numbers leave single precision first
        student, teacher = min(student, 6), min(teacher, 6)
    example.feature, example.stage = example.feature * 10.0**student, example.stage * 10.0**student
    example.logits = (example.logits - 0.5) * 10.0 ** min(student, 4)
    example.teachers = [value * 10.0**teacher for value in example.teachers]
    method = build(name, example)
    for _ in range(2):
        terms, gradients = run(method, example)
        assert all(each.isfinite().all() for each in (*terms.values(), *gradients))


# ---- manifests and tables

# Letters of several scripts and what has no width; an alphabet of all of Unicode takes a second to make.
LETTERS = [*map(chr, range(0x250)), *"\u0301αжא字\u200b\u202e\ufeff\uffff\U0010ffff𝄞😀"]
NAMES = st.text(LETTERS, min_size=1, max_size=12) | st.sampled_from(
    ["a,b", 'say "x"', "line\nbreak", "é\u0301", "‮", "\u2028", "\x00", "'", "-1", "=1+1", "\ufeffa", "\udcff", " a ", "𝄞"]
)  # fmt: skip
SECONDS = st.none() | st.floats(0, 1e6, allow_nan=False) | st.integers(0, 10**6)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    classes = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    videos = []
    for place, name in enumerate(draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))):
        path: Path | Packed = Path("/v", draw(NAMES).replace("\0", "0"))
        if draw(st.booleans()):
            path = Packed("/s/a.tar", draw(NAMES), (Member("mp4", draw(st.integers(0, 2**40)), place),), "")
        start, end = draw(SECONDS), draw(SECONDS)
        end = None if end is not None and end <= (start or 0) else end
        label = draw(st.integers(0, len(classes) - 1))
        videos.append(Video(name, path, label, draw(st.sampled_from(SPLITS)), start, end))
    return Manifest(draw(NAMES), tuple(classes), tuple(videos))


@shared_fixtures
@given(manifest=manifests(), root=st.booleans())
def test_manifests_are_read_as_they_were_written(tmp_path, manifest, root):
    manifest.save(tmp_path / "m.jsonl", Path("/v") if root else None)
    again = Manifest.load(tmp_path / "m.jsonl")
    assert again == manifest
    assert again.hash == manifest.hash


CELLS = NAMES.map(str.strip).filter(bool).filter(lambda text: "\0" not in text and "\udcff" not in text)
ROWS = st.tuples(CELLS, CELLS, st.sampled_from(SPLITS), st.none() | st.floats(0, 1e6, allow_nan=False))


@shared_fixtures
@given(rows=st.lists(ROWS, min_size=1, max_size=6), delimiter=st.sampled_from(",;\t|"))
def test_tables_are_read_as_they_were_written(tmp_path, rows, delimiter):
    assume(len({(path, start) for path, *_, start in rows}) == len(rows))
    with (tmp_path / "v.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["path", "label", "split", "start"])
        writer.writerows([*cells, "" if start is None else start] for *cells, start in rows)
    found = csv_source.load(str(tmp_path / "v.csv"), delimiter=delimiter)
    again = [(str(v.path), found.classes[v.label], v.split, v.start) for v in found.videos]
    assert again == [(str(tmp_path / path), *rest) for path, *rest in rows]


# ---- windows and times

STEP = 5  # of grey from frame to frame
COUNTS = {1: 25, 2: 10, 3: 29.97, 7: 12.5, 16: 30, 23: 8, 41: 24}  # frames: rate


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> dict[int, Path]:
    """Videos whose every frame shows its own number, by their number of frames."""
    folder = tmp_path_factory.mktemp("numbered")
    for count, rate in COUNTS.items():
        grey = (20 + STEP * np.arange(count, dtype=np.uint8))[:, None, None, None]
        write_clip(folder / f"{count}.mp4", np.broadcast_to(grey, (count, 16, 16, 3)).copy(), rate)
    return {count: folder / f"{count}.mp4" for count in COUNTS}


def numbers_of(frames: torch.Tensor) -> list[int]:
    """[T, H, W, 3] to the numbers that the frames show."""
    return ((frames.double().mean(dim=(1, 2, 3)) - 20) / STEP).round().int().tolist()


STRETCH = dict(
    frames=st.sampled_from(list(COUNTS)),
    length=st.integers(1, 48),
    begin=st.none() | st.floats(0, 0.9),
    share=st.none() | st.floats(0.05, 1),
)


def stretch_of(path: Path, begin: float | None, share: float | None) -> tuple[float | None, float | None, int, int]:  # fmt: skip
    """Start and end in seconds by shares of the video; the first frame and the number of frames in between."""
    metadata = open_video(path).metadata
    start = None if begin is None else begin * metadata.duration
    end = None if share is None else (start or 0) + share * (metadata.duration - (start or 0)) + 1e-3
    return start, end, *metadata.frame_range(start, end)


@settings(max_examples=60)
@given(stride=st.integers(1, 20), **STRETCH)
def test_sliding_windows_cover_every_frame_of_a_stretch(numbered, frames, length, stride, begin, share):
    start, end, first, count = stretch_of(numbered[frames], begin, share)
    windows = [numbers_of(clip.frames) for clip in iter_windows(numbered[frames], length, stride, start=start, end=end)]  # fmt: skip
    for place, window in enumerate(windows):
        begins = first + max(min(place * stride, count - length), 0)
        own = range(begins, min(begins + length, first + count))
        assert window == [own[k % len(own)] for k in range(length)]
    if stride <= length:
        assert {*chain.from_iterable(windows)} == {*range(first, first + count)}


@given(
    gaps=st.lists(st.integers(1, 5000), min_size=1, max_size=30),
    begin=st.integers(-(10**6), 10**6),
    base=st.sampled_from([Fraction(1, 25), Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 1000)]),
    origin=st.floats(-100, 100),
    cut=st.integers(0, 10**6),
)
def test_a_frames_own_time_names_it(gaps, begin, base, origin, cut):
    pts = begin + np.cumsum([0, *gaps[:-1]])
    empty = np.empty((0, 2), np.int64)
    metadata = VideoMetadata(Path("v"), pts, empty, int(pts[-1] + gaps[-1]), base, origin, 8, 8, True, None)
    times = [metadata.time(k) for k in range(metadata.frames + 1)]
    assert times == sorted(times)
    assume(min(np.diff(times)) > 1e-3)
    place = cut % metadata.frames
    assert metadata.frame_range(times[place], None) == (place, metadata.frames - place)
    assert metadata.frame_range(times[place], times[place + 1]) == (place, 1)
    for start, end in ((times[-1] + 1, None), (None, times[0] - 1)):
        with pytest.raises(CclError):
            metadata.frame_range(start, end)
