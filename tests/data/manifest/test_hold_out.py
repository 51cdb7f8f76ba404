from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import DataError


def manifest(counts, *, root="/a"):
    videos = [
        Video(f"{label}/{number}", Path(root) / f"{label}-{number}.mp4", label, "train")
        for label, count in enumerate(counts)
        for number in range(count)
    ]
    return Manifest(
        "m", [*map(str, range(len(counts)))], [*videos, Video("t", Path(root) / "t.mp4", 0, "test")]
    )


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.floats(0.01, 0.9), st.integers(0, 3))
def test_every_class_gives_its_share_and_keeps_some(counts, share, seed):
    held = manifest(counts).hold_out(share, seed)
    assert [video.id for video in held.videos] == [video.id for video in manifest(counts).videos]
    assert len(held.split("test")) == 1
    for label, count in enumerate(counts):
        aside = sum(video.label == label for video in held.split("val"))
        assert (aside > 0) == (count > 1)
        assert abs(aside - share * count) <= 1
        assert aside < count


def test_the_choice_depends_on_nothing_but_ids_share_and_seed():
    first, moved = manifest([20, 20]), manifest([20, 20], root="/elsewhere")
    variants = [(first, 0), (moved, 0), (Manifest("m", first.classes, first.videos[::-1]), 0), (first, 1)]
    one, *same, other = (
        {video.id for video in each.hold_out(0.2, seed).split("val")} for each, seed in variants
    )
    assert same == [one, one]
    assert other != one
    with pytest.raises(DataError, match="val split already"):
        first.hold_out(0.2).hold_out(0.2)


@pytest.mark.parametrize("kind", ["clips of a group of UCF101", "segments of a file"])
def test_groups_stay_together(kind):
    videos = [
        Video(f"v_Biking_g{group:02}_c{part:02}", Path(f"/{group}-{part}.avi"), 0, "train")
        if "clips" in kind
        else Video(f"{group}_{part}", Path(f"/{group}.mp4"), 0, "train", part, part + 1)
        for group in range(1, 11)
        for part in range(3)
    ]
    held = Manifest("m", ["a"], videos).hold_out(0.3)
    groups = Counter(video.path.stem.partition("-")[0] for video in held.split("val"))
    assert set(groups.values()) == {3}


def test_fewer_labels_are_among_more():
    whole = manifest([20, 20])
    whole = replace(whole, videos=[*whole.videos, Video("none", Path("/none.mp4"), None, "train")])

    def kept(count, seed=0, of=whole):
        return {video.id for video in of.keep_labels(count, seed).split("train") if video.label is not None}

    chosen = [kept(count) for count in (0, 2, 5, 10, 99)]
    assert [len(each) for each in chosen] == [0, 4, 10, 20, 40]
    assert all(fewer < more for fewer, more in pairwise(chosen))
    assert kept(5) == kept(5, of=replace(whole, videos=whole.videos[::-1])) != kept(5, seed=1)
    few = whole.keep_labels(2)
    assert [replace(v, label=None) for v in few.videos] == [replace(v, label=None) for v in whole.videos]
    assert few.split("test") == whole.split("test")
