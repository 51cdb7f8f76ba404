from __future__ import annotations

import logging
import os
import pickle
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

from ccl_cli.data.manifest import Manifest, Video, read_header
from ccl_cli.data.video.storage import Member, Packed
from ccl_cli.errors import DataError

PACKED = Packed("/s/train.tar", "k", (Member("mp4", 512, 9),))
both_forms = pytest.mark.parametrize("name", ["m.jsonl", "m.arrow"])


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    videos = []
    for number, split in enumerate(("train", "train", "test", "val")):
        path = tmp_path / f"v{number}.mp4"
        path.write_bytes(b"x" * (number + 1))
        videos.append(Video(f"a/v{number}", path, number % 2, split))
    return Manifest("four", ("kick", "run"), videos)


def changed(manifest: Manifest, row: int, **values) -> Manifest:
    videos = list(manifest.videos)
    videos[row] = replace(videos[row], **values)
    return replace(manifest, videos=videos)


def test_splits_and_missing_files(manifest):
    assert [video.id for video in manifest.split("train")] == ["a/v0", "a/v1"]
    manifest.videos[1].path.unlink()
    manifest.videos[2].path.unlink()
    assert [manifest.missing(split) for split in ("train", "test", "val")] == [
        [manifest.videos[1]],
        [manifest.videos[2]],
        [],
    ]


@both_forms
@pytest.mark.parametrize("below", [True, False])
def test_saved_and_loaded_again_is_the_same(manifest, tmp_path, monkeypatch, name, below):
    monkeypatch.setattr("ccl_cli.data.manifest.json_lines._CHUNK", 3)
    manifest = changed(manifest, 0, start=1.5, end=2.001, label=None)
    manifest = changed(manifest, 1, path=tmp_path / "{x}")
    manifest = changed(manifest, 2, path=PACKED, id=os.fsdecode(b"\xff{"))  # a name that is no UTF-8
    path = tmp_path / "new" / name
    manifest.save(path, tmp_path if below else None)
    again = Manifest.load(path)
    assert again == manifest
    assert again.hash == manifest.hash == read_header(path)["hash"]
    assert again.is_mapped == (name == "m.arrow")
    assert [entry.name for entry in path.parent.iterdir()] == [name]
    moved = Manifest.load(path, tmp_path / "elsewhere")
    assert moved.videos[1].path == tmp_path / ("elsewhere/{x}" if below else "{x}")
    for copy in "copy.jsonl", "copy.arrow":
        again.save(tmp_path / copy)
        assert Manifest.load(tmp_path / copy) == manifest


def test_the_hash_follows_content_but_not_location(manifest, tmp_path):
    variants = [
        replace(manifest, classes=("run", "kick")),
        replace(manifest, videos=manifest.videos[::-1]),
        *(changed(changed(manifest, 0, id=one), 1, id=two) for one, two in (("x", "yz"), ("xy", "z"))),
        changed(manifest, 0, path=manifest.videos[1].path),  # of another size
        changed(manifest, 0, path=tmp_path / "absent.mp4"),
        *(
            changed(manifest, 0, **values)
            for values in (
                {"id": "b"},
                {"label": 1},
                {"label": None},
                {"split": "test"},
                {"start": 0.5},
                {"end": 0.5},
            )
        ),
    ]
    assert len({manifest.hash, *(variant.hash for variant in variants)}) == len(variants) + 1
    moved = tmp_path / "elsewhere.mp4"
    moved.write_bytes(b"x")
    assert changed(manifest, 0, path=moved).hash == replace(manifest, name="other").hash == manifest.hash


def test_the_hash_of_the_files_follows_what_they_hold(tmp_path):
    """As long as before, and whenever it was written."""
    path, copy, rng = tmp_path / "v.mp4", tmp_path / "copy.mp4", np.random.default_rng(0)
    manifest = Manifest("one", ("kick",), [Video("v", path, 0, "train")])
    for size in (0, 1, 5000, 12_288, 40_001):
        content = rng.bytes(size)
        path.write_bytes(content)
        copy.write_bytes(content)
        os.utime(copy, ns=(1, 1))
        before = replace(manifest).files_hash
        assert changed(manifest, 0, path=copy).files_hash == before
        for at in {0, size // 2, size - 1} if size else ():
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            assert replace(manifest).files_hash != before
        path.unlink()
        assert replace(manifest).files_hash != before
    os.mkfifo(path)
    assert len(replace(manifest).files_hash) == 16  # a pipe holds nothing up


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"id": "a/v1"}, "lists 'a/v1' more than once"),
        ({"label": 2}, "'a/v0' has label 2"),
        ({"label": -1}, "a/v0.*negative label"),
        ({"split": "dev"}, "a/v0.*'dev'"),
        ({"split": "test"}, "no videos in its train split"),
        ({"start": -1.0}, "segment of 'a/v0'"),
        ({"start": 2.0, "end": 1.0}, "segment of 'a/v0'"),
        ({"end": float("inf")}, "segment of 'a/v0'"),
        *(({key: "1"}, "a/v0") for key in ("label", "start")),
        ({"label": 0.5}, "a/v0"),
        ({"id": 3}, "id=3"),
        ({"path": None}, "a/v0"),
    ],
)
def test_rows_that_do_not_fit_are_refused(manifest, values, reason):
    with pytest.raises(DataError, match=reason):
        changed(changed(manifest, 1, split="val"), 0, **values).validate()


def test_test_classes_without_training_videos_are_told(manifest, caplog):
    with caplog.at_level(logging.WARNING, "ccl"):
        manifest.validate()
        assert not caplog.records
        changed(manifest, 0, label=1).validate()
    assert "1 classes of the test split have no training video: kick" in caplog.text


@both_forms
def test_a_failed_save_leaves_the_old_file_alone(manifest, tmp_path, monkeypatch, name):
    manifest.save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    for writer in ("json_lines.json.dumps", "arrow_file.pa.RecordBatch"):
        monkeypatch.delattr(f"ccl_cli.data.manifest.{writer}")
    with pytest.raises(AttributeError):
        manifest.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_of_a_damaged_arrow_file_there_are_rows_or_an_error(manifest, tmp_path):
    path, rng = tmp_path / "m.arrow", np.random.default_rng(0)
    changed(manifest, 0, path=PACKED).save(path)
    data, outcomes = path.read_bytes(), set()
    for damaged in (data[:-1], data[:200], data + b"x", b"", b"{}"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="is not a complete manifest"):
            Manifest.load(path)
    for place in rng.integers(len(data), size=300):
        path.write_bytes(data[:place] + rng.bytes(1) + data[place + 1 :])
        try:
            loaded = Manifest.load(path)
            outcomes.add(len(list(loaded.videos)))
            list(loaded.cacheable), loaded.videos.packed, loaded.videos[1:].ids  # Arrow reads them
        except DataError:
            outcomes.add("refused")
    assert outcomes == {4, "refused"}


def test_an_arrow_file_knows_the_sizes_of_when_it_was_written(manifest, tmp_path):
    for name in "m.arrow", "m.jsonl":
        manifest.save(tmp_path / name)
    manifest.videos[0].path.unlink()
    mapped, lines = (Manifest.load(tmp_path / name) for name in ("m.arrow", "m.jsonl"))
    assert (len(mapped.missing("train")), len(lines.missing("train"))) == (0, 1)
    assert mapped.hash == manifest.hash != lines.hash


def test_a_large_list_is_mapped_from_a_file_named_after_its_content(manifest, tmp_path, monkeypatch):
    assert manifest.mapped() is manifest
    monkeypatch.setattr("ccl_cli.data.manifest._MAPPED", 4)
    one, two = manifest.mapped(), replace(manifest, name="other").mapped()
    assert one == manifest
    assert one.videos.columns.file == manifest.mapped().videos.columns.file
    assert one.mapped() is one
    assert one.videos.columns.file != two.videos.columns.file


@pytest.mark.parametrize("mapped", [True, False])
def test_another_process_gets_the_same_videos(manifest, tmp_path, monkeypatch, mapped):
    """Whatever was laid over the columns; what is mapped is opened again and not copied."""
    monkeypatch.setattr("ccl_cli.utils.shared_array._MAX_COPIED", 0)
    manifest.save(tmp_path / "m.arrow", tmp_path)
    if mapped:
        manifest = Manifest.load(tmp_path / "m.arrow")
    few = manifest.keep_labels(0)
    videos = few.videos[::-2]
    data = ForkingPickler.dumps(videos)
    assert pickle.loads(data) == videos == [few.videos[3], few.videos[1]]
    if mapped:
        assert b"a/v1" not in bytes(data)
        replace(manifest, videos=manifest.videos[::-1]).save(tmp_path / "m.arrow")
        with pytest.raises(DataError, match="was replaced while it was read"):
            pickle.loads(ForkingPickler.dumps(videos))


def test_rows_are_chosen_by_their_places(manifest):
    videos = manifest.videos
    assert videos[1:3].numbers.tolist() == [1, 2]
    assert videos[::-1][1:].numbers.tolist() == [2, 1, 0]
    assert videos[::-1].places_in(videos[1:]).tolist() == [2, 1, 0, -1]
    assert videos.without(videos[1:3]) == [videos[0], videos[3]]
    assert list(videos[::-1].ids[:2]) == ["a/v3", "a/v2"]
    assert videos[::-1].ids[-1] == "a/v0"
    with pytest.raises(IndexError):
        videos[4]


def test_a_video_may_have_no_label(manifest):
    some = changed(manifest, 0, label=None)
    some.validate()
    assert (some.videos[0].target, some.class_name(some.videos[0])) == (-1, "")
    assert some.labelled().videos == manifest.videos[1:]
    with pytest.raises(DataError, match="have no labels"):
        replace(some, videos=some.videos[:1]).labelled()
