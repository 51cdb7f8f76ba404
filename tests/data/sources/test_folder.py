from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ccl_cli.data.sources import load_source
from ccl_cli.data.sources.folder import load
from ccl_cli.errors import DataError, RecipeError
from tests.data.media import counts, touch


def make(root: Path, *names: str) -> Path:
    touch(*(root / name for name in names))
    return root


def ids(manifest, split):
    return [video.id for video in manifest.split(split)]


@pytest.fixture
def twenty(tmp_path) -> Path:
    return make(tmp_path / "set", *(f"{name}/v{k}.mp4" for name in ("run", "kick") for k in range(1, 21)))


@pytest.mark.parametrize(
    ("names", "options", "classes", "expected"),
    [
        (
            ["run/b.mp4", "run/a.avi", "kick/deep/er/c.webm", "kick/d.MOV"],
            {},
            ("kick", "run"),
            {"train": ["kick/d", "kick/deep/er/c", "run/a", "run/b"]},
        ),
        (
            ["train/run/a.mp4", "train/kick/a.mp4", "validation/run/b.mp4", "Test/kick/c.mp4"],
            {},
            ("kick", "run"),
            {"train": ["train/kick/a", "train/run/a"], "val": ["validation/run/b"], "test": ["Test/kick/c"]},
        ),
        (["train/a.mp4", "bus/b.mp4"], {}, ("bus", "train"), {"train": ["bus/b", "train/a"]}),
        (["r/a.mp4", "r/a.avi", "k/b.mp4"], {}, ("k", "r"), {"train": ["k/b", "r/a.avi", "r/a.mp4"]}),
        (["a.mp4", "run/deep/c.avi"], {"labels": "none"}, (), {"train": ["a", "run/deep/c"]}),
        (
            ["train/a.mp4", "test/run/b.mp4"],
            {"labels": "none"},
            (),
            {"train": ["train/a"], "test": ["test/run/b"]},
        ),
    ],
)
def test_layouts(tmp_path, monkeypatch, names, options, classes, expected):
    make(tmp_path / "set", *names)
    monkeypatch.setenv("HOME", str(tmp_path))
    manifest = load("set", **options)
    manifest.validate()
    assert manifest.classes == classes
    assert {split: ids(manifest, split) for split in expected} == expected
    assert {video.path for video in manifest.videos} == {tmp_path / "set" / name for name in names}
    inside = [video.label is None or classes[video.label] in video.id for video in manifest.videos]
    assert all(inside)
    assert load("~/set", **options).videos == manifest.videos


def test_what_is_left_out_is_said_in_one_line(tmp_path, caplog):
    root = make(tmp_path, "run/a.mp4", "run/a.txt", "top.mp4", ".hidden/c.mp4", "run/._a.mp4")
    with caplog.at_level(logging.INFO, "ccl"):
        assert len(load(str(root)).videos) == 1
    assert "2 files are no videos" in caplog.text
    assert "one class only" in caplog.text


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    root = make(tmp_path / "set", "run/a.mp4")
    (root / "kick").symlink_to(make(tmp_path / "other", "x.mp4"))
    (root / "run" / "loop").symlink_to(root)
    assert {video.id for video in load(str(root)).videos} == {"run/a", "kick/x"}


@pytest.mark.parametrize("split", ["random", "blocks"])
def test_shares_are_taken_from_each_class(twenty, split):
    numbers = counts(load(str(twenty), test=0.25, val=0.2, split=split))
    expected = {"train": 12, "val": 3, "test": 5}
    assert numbers == {(name, label): count for name, count in expected.items() for label in ("kick", "run")}


def test_one_video_of_each_class_stays_for_training(tmp_path):
    manifest = load(str(make(tmp_path, "run/a.mp4", "kick/b.mp4", "kick/c.mp4")), test=0.9)
    assert [manifest.class_name(video) for video in manifest.split("train")] == ["kick", "run"]


def test_a_random_split_follows_its_seed_and_each_class_alone(twenty):
    first = load(str(twenty), test=0.25)
    assert ids(first, "test") == ids(load(str(twenty), test=0.25), "test")
    assert ids(first, "test") != ids(load(str(twenty), test=0.25, seed=1), "test")
    make(twenty, "aaa/v1.mp4", "aaa/v2.mp4")
    again = load(str(twenty), test=0.25)
    assert ids(first, "test") == [name for name in ids(again, "test") if not name.startswith("aaa")]


@pytest.mark.parametrize("folds", [2, 7])
def test_folds_part_the_videos_into_blocks_in_the_order_of_numbers(twenty, folds):
    tests = [ids(load(str(twenty), fold=fold, folds=folds, val=0.25), "test") for fold in range(folds)]
    together = [name for test in tests for name in test]
    assert len(together) == len(set(together)) == 40
    for test in tests:
        numbers = sorted(int(name.partition("/v")[2]) for name in test if name.startswith("run"))
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert ids(load(str(twenty), test=0.1, split="blocks"), "test") == [
        "kick/v19",
        "kick/v20",
        "run/v19",
        "run/v20",
    ]


@pytest.mark.parametrize("location", ["absent", "", "flat", "flat/a.mp4"])
def test_wrong_places_are_refused_with_the_layout(tmp_path, location):
    make(tmp_path / "flat", "a.mp4", "b.mp4")
    with pytest.raises(DataError, match=r"folder.*ROOT/<class>/"):
        load(location)


@pytest.mark.parametrize(
    ("root", "options", "reason"),
    [
        ("split", {"test": 0.1}, "own test or val"),
        ("split", {"fold": 0}, "own test or val"),
        ("split", {"val": 0.1}, "own test or val"),
        ("set", {"fold": 0, "test": 0.1}, "fold=0"),
        ("set", {"fold": 5}, "fold=5"),
        ("set", {"tset": 0.1}, "tset=0.1: Unexpected.*ccl data info folder"),
        ("set", {"location": "x"}, "location"),
        ("set", {"test": 1.5}, "test=1.5: Input should be less than 1"),
        ("set", {"test": "much"}, "test=much: Input should be a valid number"),
    ],
)
def test_wrong_options_are_refused(tmp_path, twenty, root, options, reason):
    make(tmp_path / "split", "train/a/1.mp4", "test/a/2.mp4", "val/a/3.mp4")
    with pytest.raises(RecipeError, match=reason):
        load_source("folder", load, str(tmp_path / root), options)
