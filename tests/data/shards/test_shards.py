from __future__ import annotations

import gc
import hashlib
import io
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.manifest.columns import located
from ccl_cli.data.shards.encode import Encoded, Settings
from ccl_cli.data.shards.index import keys_for, read_shard, write_shard
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data
from ccl_cli.data.sources.shards import load
from ccl_cli.data.video import storage
from ccl_cli.data.video.reader import read_frames
from ccl_cli.data.video.shard_reader import ShardReader
from ccl_cli.data.video.sound import read_audio
from ccl_cli.data.video.storage import Packed, size_of
from ccl_cli.errors import DataError
from tests.helpers.web import Server, serving


@pytest.fixture(scope="module")
def shards(tmp_path_factory, clips_folder) -> Path:
    """The set of ``clips_folder`` as JPEG, in shards of about five videos."""
    folder, options = tmp_path_factory.mktemp("shards") / "set", {"workers": 0, "max_unreadable": 0.05}
    pack(f"folder:{clips_folder / 'set'}", folder, Settings(), shard_size=300_000, **options)
    return folder


@pytest.fixture
def copy(shards, tmp_path) -> Path:
    return shutil.copytree(shards, tmp_path / "copy")


def samples(*sizes: int, prefix: str = "k") -> list[Encoded]:
    picture = {"pts": [0], "end_pts": 1, "time_base": [1, 25], "width": 1, "height": 1, "origin": 0.0}
    record = {"format": "ccl-packed-1", "key": "k", "rows": [], "sha256": "", "picture": picture}
    return [
        Encoded(f"{prefix}{number}", "train", {"json": json.dumps(record).encode(), "jpgs": bytes(size)})
        for number, size in enumerate(sizes)
    ]


# ---- tar files


def test_a_shard_closes_at_its_size_and_lists_where_members_lie(tmp_path):
    long = "l" * 180  # longer than a tar header has room for
    written = samples(1000, 700, 1000, prefix=f"{long}/ключ")
    source = iter(written)
    write_shard(tmp_path / "a.tar", source, 5000)
    listed, content = read_shard(tmp_path / "a.tar"), (tmp_path / "a.tar").read_bytes()
    assert [sample.key for sample in listed] == [sample.key for sample in written[:2]]
    assert next(source) is written[2]
    for sample, original in zip(listed, written, strict=False):
        for suffix, offset, size in sample.members:
            assert content[offset : offset + size] == original.members[suffix]


def test_a_damaged_shard_is_named(tmp_path):
    write_shard(tmp_path / "a.tar", samples(9000), 1)
    content = (tmp_path / "a.tar").read_bytes()
    for broken in content[:4000], b"x" * 2000, content[:600] + b"{" * 100 + content[700:]:
        (tmp_path / "a.tar").write_bytes(broken)
        with pytest.raises(DataError, match=r"a\.tar' is damaged"):
            read_shard(tmp_path / "a.tar")


def test_keys_have_no_dot_and_no_two_are_alike():
    names = ["a/b", "a/b.c", "a/b_c", "../up", "/abs/x y", "...", "跑步/一.二"]
    keys = ["a/b", "a/b_c", "a/b_c-2", "__/up", "abs/x_y", "___", "跑步/一_二"]
    assert keys_for(names) == dict(zip(names, keys, strict=True))


def test_webdataset_and_ffmpeg_read_them(shards):
    import webdataset

    names = sorted(map(str, shards.glob("train-*.tar")))
    assert len(names) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files open
        found = list(webdataset.WebDataset(names, shardshuffle=False))
        gc.collect()
    assert len(found) == 12
    for sample in found:
        record = json.loads(sample["json"])
        assert sample["__key__"] == record["key"]
        assert len(sample["jpgs"]) == sum(record["picture"]["sizes"])
        assert ("wav" in sample) == (record["sound"] is not None)
        with av.open(io.BytesIO(sample["jpgs"]), format="mjpeg") as file:
            assert len(list(file.decode(video=0))) == len(record["picture"]["sizes"])


# ---- the source


def test_the_index_has_the_settings_and_a_record_the_hash_of_its_sample(shards):
    index = json.loads((shards / "index.json").read_text())
    settings = {"short_side": 128, "fps": None, "format": "jpeg", "quality": 85, "rate": 32000}
    assert index["settings"] == {**settings, "shard_size": 300_000}
    in_order = [*sorted(shards.glob("train-*.tar")), *sorted(shards.glob("test-*.tar"))]
    assert [each["name"] for each in index["shards"]] == [path.name for path in in_order]
    for video in load(str(shards)).videos:
        (record, *media) = [video.path.read(member.suffix) for member in video.path.members]
        assert hashlib.sha256(b"".join(media)).hexdigest()[:16] == json.loads(record)["sha256"]


def test_the_manifest_is_that_of_the_files(shards, clips_folder):
    before, after = load_data(f"folder:{clips_folder / 'set'}"), load_data(f"shards:{shards}")
    assert (after.name, after.classes) == (before.name, before.classes)
    one, other = ([replace(v, path=Path()) for v in m.hold_out(0.3).videos] for m in (before, after))
    assert one == other
    assert after.missing("train") == []
    assert after.hash != before.hash


def test_the_hash_of_the_files_follows_the_records(shards, copy):
    same = load_data(f"shards:{copy}")
    assert same.files_hash == load_data(f"shards:{shards}").files_hash
    video = same.cacheable[0].path
    with Path(video.shard).open("r+b") as shard:
        shard.seek(video.member("json").offset + video.member("json").size - 4)
        shard.write(b"00")  # in the hash of what it holds
    assert replace(same).files_hash != same.files_hash


def test_videos_of_a_shard_that_is_gone_since_count_as_missing(copy, tmp_path):
    load(str(copy)).save(tmp_path / "manifest.jsonl")
    (copy / "train-000000.tar").unlink()
    gone = Manifest.load(tmp_path / "manifest.jsonl").missing("train")
    assert 0 < len(gone) < 12
    assert {video.path.shard for video in gone} == {str(copy / "train-000000.tar")}
    with pytest.raises(DataError, match=r"'.*train-000000\.tar' cannot be read: No such file"):
        load(str(copy))


@pytest.mark.parametrize(("size", "reason"), [(1000, "is cut off"), (10**6, "is another one")])
def test_a_shard_that_is_cut_off_or_another_is_refused_at_once(copy, size, reason):
    (copy / "train-000001.tar").write_bytes(bytes(size))
    with pytest.raises(DataError, match=rf"'.*train-000001\.tar' {reason}.*: it has {size:,} bytes"):
        load(str(copy))


def test_what_is_no_folder_of_shards(shards, tmp_path):
    with pytest.raises(DataError, match=r"does not contain index\.json") as error:
        load(str(tmp_path))
    assert "ccl data pack" in error.value.hint
    index = json.loads((shards / "index.json").read_text())
    elsewhere = [
        json.dumps(index | {"shards": [{"name": f"{at}.tar", "size": 1}]}) for at in ("../a", "/etc/a")
    ]
    for text in "", "{", "[]", '{"format": "other"}', '{"format": "ccl-shards-2"}', *elsewhere:
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(DataError, match=r"index\.json of '.*' is not one of 'ccl-shards-2'"):
            load(str(tmp_path))


@pytest.mark.parametrize(
    ("root", "lie", "reason"),
    [
        ("/packed", {"shard": "../train-000000.tar"}, "leaves the folder"),
        ("https://example.org/packed", {"shard": "/etc/passwd"}, "is not a shard of"),
        ("https://example.org/packed", {"shard": "https://example.com/a.tar"}, "is not a shard of"),
        *(
            ("/packed", {"members": [each]}, "members")
            for each in (["wav", -5, 1], ["wav", 1, -5], ["wav", "x", 1])
        ),
        ("/packed", {"members": 5}, "members"),
        ("/packed", {"key": 5}, "key"),
    ],
)
def test_a_list_of_videos_that_points_elsewhere(root, lie, reason):
    text = json.dumps({"shard": "a.tar", "key": "a/b", "members": [["json", 0, 9]], **lie})
    with pytest.raises(ValueError, match=reason):
        located(root, text)


def test_an_index_and_a_list_of_videos_that_do_not_belong_together(shards, copy):
    load(str(shards)).keep_labels(1).save(copy / "videos.arrow")
    with pytest.raises(DataError, match=r"videos\.arrow and index\.json of '.*' belong to two sets"):
        load(str(copy))


def test_a_video_that_was_not_packed_says_why():
    location = Packed("/d", "a/b", reason="'a/b' is not in the shards: it was empty.")
    assert size_of(location) is None
    with pytest.raises(DataError, match="it was empty"):
        read_frames(location, 0, 1)


# ---- over a server


@pytest.fixture
def server(shards, monkeypatch):
    monkeypatch.setattr(storage, "_PAUSES", (0.0, 0.0))
    with serving(Server(root=shards.parent)) as server:
        yield server


def test_from_a_server_everything_is_as_from_the_folder(shards, server):
    near, far = load_data(f"shards:{shards}"), load_data(f"shards:{server.address}/set/")
    assert far.hash == near.hash
    assert far.missing("train") == []
    for one, other in zip(near.videos[::4], far.videos[::4], strict=True):
        assert torch.equal(read_frames(one.path, 3, 8).frames, read_frames(other.path, 3, 8).frames)
        near_sound, far_sound = (read_audio(v.path, centre=0.4, seconds=9, rate=32000) for v in (one, other))
        assert near_sound.state == far_sound.state
        assert near_sound.samples is None or torch.equal(near_sound.samples, far_sound.samples)


def test_only_the_window_is_fetched(server):
    place = load_data(f"shards:{server.address}/set").videos[0].path
    server.asked.clear()
    reader = ShardReader(place)
    list(reader.frames(range(4, 7), short_side=256))
    first, last = place.member("jpgs").offset + reader._offsets[[4, 7]]
    assert [asked for _, asked in server.asked][1:] == [f"bytes={first}-{last - 1}"]  # after the record
