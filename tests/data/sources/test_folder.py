from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ccl_cli.data.sources.folder import load
from ccl_cli.errors import DataError, RecipeError


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def ids(manifest, split):
    return [video.id for video in manifest.split(split)]


@pytest.fixture
def twenty(tmp_path) -> Path:
    return make(tmp_path / "set", *(f"{name}/v{k}.mp4" for name in ("run", "kick") for k in range(1, 21)))


def test_class_folders_are_all_for_training(tmp_path):
    root = make(tmp_path, "run/b.mp4", "run/a.avi", "kick/deep/er/c.webm", "kick/d.MOV")
    manifest = load(str(root))
    assert manifest.classes == ("kick", "run")
    assert [(v.id, v.label, v.split) for v in manifest.videos] == [
        ("kick/d", 0, "train"),
        ("kick/deep/er/c", 0, "train"),
        ("run/a", 1, "train"),
        ("run/b", 1, "train"),
    ]
    assert manifest.videos[0].path == root / "kick/d.MOV"
    manifest.validate()


def test_split_folders(tmp_path):
    root = make(tmp_path, "train/run/a.mp4", "train/kick/a.mp4", "validation/run/b.mp4", "Test/kick/c.mp4")
    manifest = load(str(root))
    assert manifest.classes == ("kick", "run")
    assert ids(manifest, "train") == ["train/kick/a", "train/run/a"]
    assert ids(manifest, "val") == ["validation/run/b"]
    assert ids(manifest, "test") == ["Test/kick/c"]


def test_a_class_may_be_called_train(tmp_path):
    manifest = load(str(make(tmp_path, "train/a.mp4", "bus/b.mp4")))
    assert manifest.classes == ("bus", "train")


def test_relative_and_home_locations(tmp_path, monkeypatch):
    root = make(tmp_path / "set", "run/a.mp4", "kick/b.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("set").videos == load("~/set").videos == load(str(root)).videos
    assert load("set").videos[0].path.is_absolute()


def test_what_is_left_out_is_said_in_one_line(tmp_path, caplog):
    root = make(
        tmp_path,
        "run/a.mp4",
        "kick/b.mp4",
        "run/a.txt",
        "run/b.txt",
        "top.mp4",
        ".hidden/c.mp4",
        "run/._a.mp4",
    )
    with caplog.at_level(logging.INFO, "ccl"):
        assert len(load(str(root)).videos) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"'{root}': 3 files are not videos of a class (2 .txt, 1 .mp4)."
    ]


def test_without_labels_every_video_counts_wherever_it_lies(tmp_path):
    root = make(tmp_path, "a.mp4", "run/b.mp4", "run/deep/c.avi", "notes.txt")
    manifest = load(str(root), labels="none", test=0.34)
    manifest.validate(["train", "test"])
    assert sorted(video.id for video in manifest.videos) == ["a", "run/b", "run/deep/c"]
    assert len(manifest.split("test")) == 1
    assert (manifest.classes, {video.label for video in manifest.videos}) == ((), {None})
    split = load(str(make(tmp_path / "s", "train/a.mp4", "test/run/b.mp4")), labels="none")
    assert (ids(split, "train"), ids(split, "test")) == (["train/a"], ["test/run/b"])
    with pytest.raises(DataError, match="has no videos in it"):
        load(str(make(tmp_path / "none", "a.txt")), labels="none")


def test_files_that_differ_in_their_suffix_alone_keep_it(tmp_path):
    manifest = load(str(make(tmp_path, "run/a.mp4", "run/a.avi", "kick/b.mp4")))
    manifest.validate()
    assert ids(manifest, "train") == ["kick/b", "run/a.avi", "run/a.mp4"]


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    other = make(tmp_path / "other", "x.mp4")
    root = make(tmp_path / "set", "run/a.mp4")
    (root / "kick").symlink_to(other)
    (root / "run" / "loop").symlink_to(root)
    assert {video.id for video in load(str(root)).videos} == {"run/a", "kick/x"}


@pytest.mark.parametrize("split", ["random", "blocks"])
def test_shares_are_taken_from_each_class(twenty, split):
    manifest = load(str(twenty), test=0.25, val=0.2, split=split)
    manifest.validate(["train", "val", "test"])
    counts = manifest.counts()
    assert counts == {
        name: {"kick": number, "run": number} for name, number in (("train", 12), ("val", 3), ("test", 5))
    }


def test_a_random_split_follows_its_seed_and_each_class_alone(twenty):
    first = load(str(twenty), test=0.25)
    assert ids(first, "test") == ids(load(str(twenty), test=0.25), "test")
    assert ids(first, "test") != ids(load(str(twenty), test=0.25, seed=1), "test")
    make(twenty, "aaa/v1.mp4", "aaa/v2.mp4")
    again = load(str(twenty), test=0.25)
    assert ids(first, "test") == [name for name in ids(again, "test") if not name.startswith("aaa")]


def test_blocks_are_contiguous_in_the_order_of_numbers(twenty):
    manifest = load(str(twenty), test=0.25, split="blocks")
    assert {name for name in ids(manifest, "test") if name.startswith("run")} == {
        f"run/v{k}" for k in range(16, 21)
    }


@pytest.mark.parametrize("folds", [2, 7])
def test_folds_part_the_videos_into_contiguous_blocks(twenty, folds):
    tests = [ids(load(str(twenty), fold=fold, folds=folds), "test") for fold in range(folds)]
    together = [name for test in tests for name in test]
    assert len(together) == len(set(together)) == 40
    for test in tests:
        numbers = sorted(int(name.partition("/v")[2]) for name in test if name.startswith("run"))
        assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_validation_beside_a_fold(twenty):
    manifest = load(str(twenty), fold=0, folds=5, val=0.25)
    assert manifest.counts()["val"] == {"kick": 4, "run": 4}
    assert set(ids(manifest, "test")) == {f"{name}/v{k}" for name in ("run", "kick") for k in range(1, 5)}


def test_one_video_of_each_class_stays_for_training(tmp_path):
    root = make(tmp_path, "run/a.mp4", "kick/b.mp4", "kick/c.mp4")
    counts = load(str(root), test=0.9).counts()
    assert counts["train"] == {"kick": 1, "run": 1}
    assert counts["test"] == {"kick": 1, "run": 0}


def test_one_class_is_told(tmp_path, caplog):
    load(str(make(tmp_path, "run/a.mp4")))
    assert "holds one class only, 'run'" in caplog.text


def test_wrong_places_are_refused_with_the_layout(tmp_path):
    make(tmp_path / "flat", "a.mp4", "b.mp4")
    for location, reason in (
        (str(tmp_path / "absent"), "There is no folder"),
        ("", "No folder is named"),
        (str(tmp_path / "flat"), "has no class folder with videos"),
        (str(tmp_path / "flat/a.mp4"), "There is no folder"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            load(location)
        assert "ROOT/<class>/" in str(caught.value)


def test_options_that_contradict_are_refused(tmp_path, twenty):
    split = make(tmp_path / "split", "train/a/1.mp4", "test/a/2.mp4", "val/a/3.mp4")
    for root, options in (
        (split, {"test": 0.1}),
        (split, {"fold": 0}),
        (split, {"val": 0.1}),
        (twenty, {"fold": 0, "test": 0.1}),
        (twenty, {"fold": 5}),
    ):
        with pytest.raises(RecipeError):
            load(str(root), **options)
