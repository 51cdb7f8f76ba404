from __future__ import annotations

import os
import resource
import shutil
import signal
from pathlib import Path

import pytest

from ccl_cli.data.checks.check import check
from ccl_cli.data.checks.findings import Effort
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.shards import encode_all
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.index import read_shard
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data
from ccl_cli.errors import DataError, Interrupted, UsageError
from ccl_cli.utils.files import lock_file

SMALL = {"workers": 0, "shard_size": 300_000, "max_unreadable": 0.05}


@pytest.fixture
def source(clips_folder) -> str:
    return f"folder:{clips_folder / 'set'}"


@pytest.fixture(scope="module")
def whole(clips_folder, tmp_path_factory) -> dict[str, bytes]:
    """What packing without an interruption writes."""
    folder = tmp_path_factory.mktemp("whole") / "p"
    pack(f"folder:{clips_folder / 'set'}", folder, Settings(), **SMALL)
    return content(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_a_set_becomes_shards_by_split_and_a_report(tmp_path, source):
    report = pack(source, tmp_path / "p", Settings(), **SMALL)
    train, test = report["splits"]["train"], report["splits"]["test"]
    shards = {split: sorted((tmp_path / "p").glob(f"{split}-*.tar")) for split in ("train", "test")}
    assert train == {
        "videos": 12,
        "packed": 12,
        "shards": len(shards["train"]),
        "bytes": sum(path.stat().st_size for path in shards["train"]),
        "seconds": pytest.approx(12 * 20 / 25),
        "sound": {"no track": 2, "silent": 2, "present": 8},
    }
    assert (test["packed"], test["sound"], report["unreadable"]) == (6, {"present": 6}, {})
    assert shards["test"][0].name == "test-000000.tar"
    classes = [sample.key.split("/")[1] for path in shards["train"] for sample in read_shard(path)]
    assert classes not in (sorted(classes), sorted(classes, reverse=True))  # mixed
    assert sorted(path.name for path in (tmp_path / "p").glob(".*")) == [".lock", ".shards.json"]


def test_finished_shards_are_not_made_again(tmp_path, source, whole, monkeypatch):
    folder, encoded, real = tmp_path / "p", [], encode_all.encode
    pack(source, folder, Settings(), **SMALL)
    monkeypatch.setattr(encode_all, "encode", lambda *args: encoded.append(args[0].key) or real(*args))
    pack(source, folder, Settings(), **SMALL)
    assert encoded == []
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    (folder / "index.json").unlink()
    (folder / "train-000001.tar").unlink()
    pack(source, folder, Settings(), **SMALL)
    assert 0 < len(encoded) < 12
    assert content(folder) == whole
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert {name for name in after if after[name] != before[name]} == {"train-000001.tar"}


def test_stopped_by_a_signal_it_goes_on_later(tmp_path, source, whole, monkeypatch):
    real, number = encode_all.encode, [0]

    def stopping(*args):
        number[0] += 1
        if number[0] == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    monkeypatch.setattr(encode_all, "encode", stopping)
    with pytest.raises(Interrupted, match="Stopped by SIGTERM; finished shards are kept"):
        pack(source, tmp_path / "p", Settings(), **SMALL)
    left = content(tmp_path / "p")
    assert left
    assert left.items() < whole.items()
    assert "index.json" not in left
    assert list((tmp_path / "p").glob(".*.tmp")) == []
    pack(source, tmp_path / "p", Settings(), **SMALL)
    assert content(tmp_path / "p") == whole


def test_a_disk_that_is_full_leaves_nothing_half_written(tmp_path, source, whole):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(len(data) for name, data in whole.items() if name.endswith(".tar"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/p/.*'"):
            pack(source, tmp_path / "p", Settings(), **SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(tmp_path / "p").items() < whole.items()
    assert list((tmp_path / "p").glob(".*.tmp")) == []
    pack(source, tmp_path / "p", Settings(), **SMALL)
    assert content(tmp_path / "p") == whole


def test_other_settings_other_videos_and_other_processes_do_not_mix(tmp_path, source, clips_folder):
    folder = tmp_path / "p"
    pack(source, folder, Settings(), **SMALL)
    shutil.copytree(clips_folder / "set", tmp_path / "set")
    next((tmp_path / "set/train/down").glob("*.mp4")).unlink()
    for data, settings in ((source, Settings(quality=50)), (f"folder:{tmp_path / 'set'}", Settings())):
        with pytest.raises(DataError, match="holds shards of other options"):
            pack(data, folder, settings, **SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"mine' is not empty\."):
        pack(source, tmp_path / "mine", Settings(), **SMALL)
    with (
        lock_file(folder / ".lock", "held", "wait"),
        pytest.raises(UsageError, match="Another process packs"),
    ):
        pack(source, folder, Settings(), **SMALL)


# ---- rows of a set


@pytest.fixture
def damaged(tmp_path, clips_folder) -> Path:
    folder = shutil.copytree(clips_folder / "set", tmp_path / "set")
    (folder / "train/right/3.mp4").write_bytes(b"not a video")
    return folder


def test_unreadable_videos_are_named_and_stay_in_every_count(tmp_path, damaged):
    report = pack(f"folder:{damaged}", tmp_path / "p", Settings(), **SMALL)
    assert list(report["unreadable"]) == ["train/right/3"]
    assert (report["splits"]["train"]["videos"], report["splits"]["train"]["packed"]) == (12, 11)
    manifest = load_data(f"shards:{tmp_path / 'p'}")
    assert len(manifest.split("train")) == 12
    (missing,) = manifest.missing("train")
    assert missing.id == "train/right/3"
    assert "is not a complete media file" in missing.path.reason


def test_too_many_unreadable_videos_stop_it(tmp_path, damaged):
    (damaged / "train/right/4.mp4").write_bytes(b"nor this")
    with pytest.raises(
        DataError, match=r"2 of 12 videos of the train split.* The last: .*media file"
    ) as error:
        pack(f"folder:{damaged}", tmp_path / "p", Settings(), **SMALL)
    assert "--max-unreadable" in error.value.hint


def test_stretches_of_one_file_are_packed_once(tmp_path, clips_folder):
    path = clips_folder / "set/train/right/2.mp4"
    rows = [f"{path},a,train,0.0,0.3", f"{path},b,train,0.2,0.5", f"{path},a,test,0.6,0.8"]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split,start,end", *rows]) + "\n")
    pack(f"csv:{tmp_path / 't.csv'}", tmp_path / "p", Settings(), **SMALL)
    one, two, three = videos = load_data(f"shards:{tmp_path / 'p'}").videos
    assert one.path == two.path != three.path
    assert [(v.start, v.end) for v in videos] == [(0.0, 0.3), (0.2, 0.5), (0.6, 0.8)]
    assert sum(len(read_shard(path)) for path in (tmp_path / "p").glob("*.tar")) == 2


def test_a_source_is_grouped_by_file_and_split():
    rows = [
        Video("x@0-1", Path("/x"), 0, "train", 0, 1),
        Video("y", Path("/y"), 0, "train"),
        Video("x@3-", Path("/x"), 0, "train", 3, None),
    ]
    by_key = {source.key: source for source in encode_all.sources_of(Manifest("m", ("c",), tuple(rows)))}
    assert (by_key["x@0-1"].start, by_key["x@0-1"].end) == (0, None)
    assert [row["id"] for row in by_key["x@0-1"].rows] == ["x@0-1", "x@3-"]
    assert (by_key["y"].start, by_key["y"].end) == (None, None)


def test_videos_without_labels_are_packed_and_checked_like_others(tmp_path, clips_folder):
    labels = {"train/right/2": "right", "train/down/2": "", "test/down/0": ""}
    rows = [f"{clips_folder}/set/{name}.mp4,{label}" for name, label in labels.items()]
    (tmp_path / "some.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    manifest = load_data(f"csv:{tmp_path / 'some.csv'}")
    assert check(manifest, Effort(1, 60.0), frames=8).splits["train"]["videos"] == 3
    pack(f"csv:{tmp_path / 'some.csv'}", tmp_path / "p", Settings(), **SMALL)
    packed = load_data(f"shards:{tmp_path / 'p'}")
    assert packed.classes == ("right",)
    assert {video.id: video.label for video in packed.videos} == {v.id: v.label for v in manifest.videos}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jpeg", "mp4"])
def test_the_number_of_processes_changes_no_byte(tmp_path, source, form):
    settings = Settings(format=form, quality=30)
    for workers in 0, 1, 2:
        pack(source, tmp_path / str(workers), settings, **SMALL | {"workers": workers})
    assert content(tmp_path / "0") == content(tmp_path / "1") == content(tmp_path / "2")
