from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import DataError


def manifest(counts, *, root="/a", names="{label}/{number}"):
    videos = [
        Video(names.format(label=label, number=number), Path(root) / f"{label}-{number}.mp4", label, "train")
        for label, count in enumerate(counts)
        for number in range(count)
    ]
    videos.append(Video("t", Path(root) / "t.mp4", 0, "test"))
    return Manifest("m", tuple(map(str, range(len(counts)))), tuple(videos))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.floats(0.01, 0.9), st.integers(0, 3))
def test_every_class_gives_its_share_and_keeps_some(counts, share, seed):
    held = manifest(counts).hold_out(share, seed)
    assert [video.id for video in held.videos] == [video.id for video in manifest(counts).videos]
    assert len(held.split("test")) == 1
    for label, count in enumerate(counts):
        aside = sum(video.label == label for video in held.split("val"))
        assert aside < count
        assert (aside > 0) == (count > 1)
        if count > 1:
            assert abs(aside - share * count) <= 1


def test_the_choice_depends_on_nothing_but_ids_share_and_seed():
    first = manifest([20, 20])
    moved = manifest([20, 20], root="/elsewhere")
    shuffled = Manifest("m", first.classes, first.videos[::-1])
    chosen = {video.id for video in first.hold_out(0.2).split("val")}
    assert {video.id for video in moved.hold_out(0.2).split("val")} == chosen
    assert {video.id for video in shuffled.hold_out(0.2).split("val")} == chosen
    assert {video.id for video in first.hold_out(0.2, seed=1).split("val")} != chosen


def test_clips_of_one_group_stay_together():
    names = [f"v_Biking_g{group:02}_c{clip:02}" for group in range(1, 9) for clip in range(1, 5)]
    videos = tuple(Video(name, Path(f"/{name}.avi"), 0, "train") for name in names)
    held = Manifest("ucf", ("Biking",), videos).hold_out(0.25)
    groups = Counter(video.id.split("_")[2] for video in held.split("val"))
    assert groups
    assert set(groups.values()) == {4}


def test_stretches_of_one_file_stay_together():
    videos = tuple(
        Video(f"v{file}_{part}", Path(f"/v{file}.mp4"), 0, "train", part, part + 1.0)
        for file in range(10)
        for part in range(3)
    )
    held = Manifest("m", ("a",), videos).hold_out(0.3)
    by_file = Counter(video.path for video in held.split("val"))
    assert set(by_file.values()) == {3}


def test_a_val_split_is_not_mixed_with_another():
    held = manifest([5]).hold_out(0.2)
    with pytest.raises(DataError, match="val split already"):
        held.hold_out(0.2)
