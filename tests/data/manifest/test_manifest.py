from __future__ import annotations

import logging
import os
import pickle
from dataclasses import replace
from itertools import pairwise
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.data.manifest import Manifest, Video, read_header
from ccl_cli.data.video.storage import Member, Packed
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


@pytest.mark.parametrize("name", ["m.jsonl", "m.arrow"])
@pytest.mark.parametrize("below", [True, False])
def test_saved_and_loaded_again_is_the_same(manifest, tmp_path, monkeypatch, name, below):
    monkeypatch.setattr("ccl_cli.data.manifest.json_lines._CHUNK", 3)
    packed = Packed("/s/train.tar", "k", (Member("mp4", 512, 9),))
    odd = os.fsdecode(b"\xff{")  # a file name that is no UTF-8
    for row, values in enumerate(({"start": 1.5, "end": 1e-3 + 2}, {"path": tmp_path / "{x}"}, {"path": packed, "id": odd})):  # fmt: skip
        manifest = changed(manifest, row, **values)
    path = tmp_path / "new" / name
    manifest.save(path, tmp_path if below else None)
    again = Manifest.load(path)
    assert again == manifest
    assert again.hash == manifest.hash == read_header(path)["hash"]
    assert (again.videos.columns.file is not None) == (name == "m.arrow")
    assert [entry.name for entry in path.parent.iterdir()] == [name]
    moved = Manifest.load(path, tmp_path / "elsewhere")
    assert moved.videos[1].path == tmp_path / ("elsewhere/{x}" if below else "{x}")
    again.save(tmp_path / "copy.jsonl")
    assert Manifest.load(tmp_path / "copy.jsonl") == manifest


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
        ({"label": -1}, "a/v0.*a negative label"),
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


@pytest.mark.parametrize("name", ["m.jsonl", "m.arrow"])
def test_a_failed_save_leaves_the_old_file_alone(manifest, tmp_path, monkeypatch, name):
    manifest.save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    for writer in ("json_lines.json.dumps", "arrow_file.pa.RecordBatch"):
        monkeypatch.delattr(f"ccl_cli.data.manifest.{writer}")
    with pytest.raises(AttributeError):
        manifest.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:200], lambda data: data + b"x"]
)
def test_an_arrow_file_that_is_cut_off_or_longer_is_refused(manifest, tmp_path, damage):
    path = tmp_path / "m.arrow"
    manifest.save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="is not a complete manifest"):
        Manifest.load(path)


def test_of_a_damaged_arrow_file_there_are_rows_or_an_error(manifest, tmp_path):
    path, rng = tmp_path / "m.arrow", np.random.default_rng(0)
    changed(manifest, 0, path=Packed("/s/train.tar", "k", (Member("mp4", 512, 9),))).save(path)
    data, outcomes = path.read_bytes(), set()
    for place in rng.integers(len(data), size=300):
        path.write_bytes(data[:place] + rng.bytes(1) + data[place + 1 :])
        try:
            damaged = Manifest.load(path)
            outcomes.add(len(list(damaged.videos)))
            list(damaged.cacheable), damaged.videos.packed, damaged.videos[1:].ids  # Arrow reads them
        except DataError:
            outcomes.add("refused")
    assert outcomes == {4, "refused"}


def test_an_arrow_file_knows_the_sizes_of_when_it_was_written(manifest, tmp_path):
    manifest.save(tmp_path / "m.arrow")
    manifest.save(tmp_path / "m.jsonl")
    manifest.videos[0].path.unlink()
    mapped, lines = (Manifest.load(tmp_path / name) for name in ("m.arrow", "m.jsonl"))
    assert (len(mapped.missing("train")), len(lines.missing("train"))) == (0, 1)
    assert mapped.hash == manifest.hash != lines.hash


@pytest.mark.parametrize(
    "values", [{"label": "1"}, {"label": 0.5}, {"path": "/v.mp4"}, {"start": "1"}, {"id": 3}, {"split": None}]
)
def test_a_row_with_a_value_of_another_type_is_named(manifest, values):
    with pytest.raises(DataError, match=r"a/v0|unknown split|id=3"):
        changed(manifest, 0, **values)


def test_a_large_list_is_mapped_from_a_file_named_after_its_content(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_HOME", str(tmp_path / "home"))
    assert manifest.mapped() is manifest
    monkeypatch.setattr("ccl_cli.data.manifest._MAPPED", 4)
    one, two = manifest.mapped(), replace(manifest, name="other").mapped()
    assert one == manifest
    assert one.mapped().videos.columns.file == manifest.mapped().videos.columns.file
    assert one.videos.columns.file != two.videos.columns.file
    assert len(list((tmp_path / "home/manifests").iterdir())) == 2


@pytest.mark.parametrize("mapped", [True, False])
def test_another_process_gets_the_same_videos(manifest, tmp_path, monkeypatch, mapped):
    """Whatever was laid over the columns; what is mapped is opened again and not copied."""
    monkeypatch.setattr("ccl_cli.utils.shared_array._MAX_COPIED", 0)
    manifest.save(tmp_path / "m.arrow", tmp_path)
    if mapped:
        manifest = Manifest.load(tmp_path / "m.arrow")
    changed_ = manifest.keep_labels(0)
    videos = changed_.videos[::-2]
    data = ForkingPickler.dumps(videos)
    assert pickle.loads(data) == videos == [changed_.videos[3], changed_.videos[1]]
    if mapped:
        assert b"a/v1" not in bytes(data)
        manifest.save(tmp_path / "m.arrow")
        with pytest.raises(DataError, match="was replaced while it was read"):
            pickle.loads(ForkingPickler.dumps(videos))


def test_rows_are_chosen_by_their_places(manifest):
    videos = manifest.videos
    assert videos[1:3].numbers.tolist() == [1, 2]
    assert videos[::-1][1:].numbers.tolist() == [2, 1, 0]
    assert videos[::-1].places_in(videos[1:]).tolist() == [2, 1, 0, -1]
    assert videos.without(videos[1:3]) == [videos[0], videos[3]]
    assert videos[::-1].ids[-1] == "a/v0"
    assert list(videos[::-1].ids[:2]) == ["a/v3", "a/v2"]
    with pytest.raises(IndexError):
        videos[4]


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
