from __future__ import annotations

import logging
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.errors import DataError, SystemSetupError


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    videos = []
    for number, split in enumerate(("train", "train", "test", "val")):
        path = tmp_path / f"v{number}.mp4"
        path.write_bytes(b"x" * (number + 1))
        videos.append(Video(f"a/v{number}", path, number % 2, split))
    return Manifest("four", ("kick", "run"), tuple(videos))


def changed(manifest: Manifest, row: int, **values) -> Manifest:
    videos = list(manifest.videos)
    videos[row] = replace(videos[row], **values)
    return replace(manifest, videos=tuple(videos))


def test_splits_and_counts(manifest):
    assert [video.id for video in manifest.split("train")] == ["a/v0", "a/v1"]
    assert manifest.counts() == {
        "train": {"kick": 1, "run": 1},
        "val": {"kick": 0, "run": 1},
        "test": {"kick": 1, "run": 0},
    }


def test_saved_and_loaded_again_is_the_same(manifest, tmp_path):
    manifest = changed(manifest, 1, start=1.5, end=1e-3 + 2)
    path = tmp_path / "new" / "m.jsonl"
    manifest.save(path)
    assert Manifest.load(path) == manifest
    assert Manifest.load(path).hash == manifest.hash
    assert [entry.name for entry in path.parent.iterdir()] == ["m.jsonl"]


def test_the_hash_follows_content_but_not_location(manifest, tmp_path):
    variants = [
        replace(manifest, classes=("run", "kick")),
        changed(manifest, 0, id="b/v0"),
        changed(manifest, 0, label=1),
        changed(manifest, 0, split="test"),
        changed(manifest, 0, start=0.5),
        changed(manifest, 0, end=0.5),
        changed(manifest, 0, path=manifest.videos[1].path),  # of another size
        changed(manifest, 0, path=tmp_path / "absent.mp4"),
        replace(manifest, videos=manifest.videos[::-1]),
    ]
    hashes = {variant.hash for variant in variants}
    assert len(hashes) == len(variants)
    assert manifest.hash not in hashes
    assert len(manifest.hash) == 16
    moved = tmp_path / "elsewhere.mp4"
    moved.write_bytes(b"x")
    assert changed(manifest, 0, path=moved).hash == manifest.hash
    assert replace(manifest, name="other").hash == manifest.hash


def test_the_hash_of_the_files_follows_what_they_hold(tmp_path):
    """As long as before, and whenever it was written."""
    path, rng = tmp_path / "v.mp4", np.random.default_rng(0)
    for size in (0, 1, 5000, 12_288, 40_001):
        content = rng.bytes(size)
        path.write_bytes(content)
        manifest = Manifest("one", ("kick",), (Video("v", path, 0, "train"),))
        before = manifest.files_hash
        elsewhere = tmp_path / "copy.mp4"
        elsewhere.write_bytes(content)
        os.utime(elsewhere, ns=(1, 1))
        assert changed(manifest, 0, path=elsewhere).files_hash == before
        for at in {0, size // 2, size - 1} if size else ():
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            assert replace(manifest).files_hash != before
        path.write_bytes(content + b"x")
        assert replace(manifest).files_hash != before
        path.unlink()
        assert replace(manifest).files_hash != before


def test_a_pipe_in_place_of_a_video_holds_nothing_up(tmp_path):
    os.mkfifo(tmp_path / "v.mp4")
    manifest = Manifest("one", ("kick",), (Video("v", tmp_path / "v.mp4", 0, "train"),))
    assert len(manifest.files_hash) == 16


def test_missing_names_the_absent_files_of_one_split(manifest):
    manifest.videos[1].path.unlink()
    manifest.videos[2].path.unlink()
    assert manifest.missing("train") == [manifest.videos[1]]
    assert manifest.missing("test") == [manifest.videos[2]]
    assert manifest.missing("val") == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"id": "a/v1"}, "lists 'a/v1' more than once"),
        ({"label": 2}, "'a/v0' has label 2, but there are 2 classes"),
        ({"label": -1}, "has label -1"),
        ({"split": "dev"}, "unknown split 'dev'"),
    ],
)
def test_rows_that_do_not_fit_are_refused(manifest, values, reason):
    with pytest.raises(DataError, match=reason):
        changed(manifest, 0, **values).validate()


def test_a_needed_split_must_not_be_empty(manifest):
    manifest.validate(["train", "val", "test"])
    only_test = replace(manifest, videos=manifest.split("test"))
    only_test.validate(["test"])
    with pytest.raises(DataError, match=r"no videos in its train split\. `ccl data check`"):
        only_test.validate()


def test_test_classes_without_training_videos_are_told(manifest, caplog):
    with caplog.at_level(logging.WARNING, "ccl"):
        manifest.validate()
        assert not caplog.records
        changed(manifest, 0, label=1).validate()
    assert "1 classes of the test split have no training video: kick" in caplog.text


@pytest.mark.parametrize(
    "content",
    ["", "not json", "[]", "{}", '{"format": "other", "name": "x", "classes": [], "videos": 0}', "cut"],
)
def test_what_is_no_manifest_is_refused(manifest, tmp_path, content):
    path = tmp_path / "m.jsonl"
    manifest.save(path)
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) if content == "cut" else content)
    with pytest.raises(DataError, match="is not a complete manifest"):
        Manifest.load(path)


def test_unreadable_and_unwritable_places_are_named(manifest, tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Manifest.load(tmp_path / "absent.jsonl")
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(SystemSetupError, match="cannot be written"):
        manifest.save(blocked / "m.jsonl")


def test_a_failed_save_leaves_the_old_file_alone(manifest, tmp_path):
    path = tmp_path / "m.jsonl"
    manifest.save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        changed(manifest, 3, label=Path("not a number")).save(path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_video_may_have_no_label(manifest, tmp_path):
    some = changed(manifest, 0, label=None)
    some.validate()
    some.save(tmp_path / "m.jsonl")
    again = Manifest.load(tmp_path / "m.jsonl")
    assert again == some
    assert (again.videos[0].target, again.class_name(again.videos[0])) == (-1, "")
    assert again.labelled().videos == manifest.videos[1:]
    assert len({some.hash, manifest.hash, again.labelled().hash}) == 3
    assert again.counts()["train"] == {"kick": 0, "run": 1}
    with pytest.raises(DataError, match="have no labels"):
        replace(again, videos=again.videos[:1]).labelled()


def test_fewer_labels_are_among_more():
    videos = [
        Video(f"{label}/{n}", Path(f"/{label}/{n}.mp4"), label, "train")
        for label in (0, 1)
        for n in range(20)
    ]
    videos += [Video("none", Path("/none.mp4"), None, "train"), Video("t", Path("/t.mp4"), 1, "test")]
    manifest = Manifest("few", ("kick", "run"), tuple(videos))

    def kept(count, seed=0, of=manifest):
        return {video.id for video in of.keep_labels(count, seed).split("train") if video.label is not None}

    chosen = [kept(count) for count in (0, 2, 5, 10, 99)]
    assert [len(each) for each in chosen] == [0, 4, 10, 20, 40]
    assert all(fewer < more for fewer, more in pairwise(chosen))
    assert kept(5) == kept(5, of=replace(manifest, videos=manifest.videos[::-1])) != kept(5, seed=1)
    few = manifest.keep_labels(2)
    assert [replace(video, label=None) for video in few.videos] == [
        replace(v, label=None) for v in manifest.videos
    ]
    assert few.split("test") == manifest.split("test")
