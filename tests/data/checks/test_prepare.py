from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from dataclasses import replace

import pytest

from ccl_cli.data.checks.findings import Effort
from ccl_cli.data.checks.prepare import fetch_list, prepare
from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import load_data
from ccl_cli.data.sources.about import ListFile
from ccl_cli.errors import DataError, SystemSetupError, UsageError
from tests.helpers.web import Server, go_online, serving

EFFORT = Effort(2, 60.0)


@pytest.fixture
def listed(clips_folder, tmp_path) -> Manifest:
    """18 videos, of which one is missing and one empty."""
    shutil.copytree(clips_folder / "set", tmp_path / "set")
    manifest = load_data(f"folder:{tmp_path}/set")
    by_id = {video.id: video for video in manifest.videos}
    by_id["train/right/5"].path.unlink()
    by_id["test/down/2"].path.write_bytes(b"")
    return manifest


def test_the_manifest_is_its_source_and_replaces_nothing_else(listed, tmp_path):
    path = tmp_path / "m.jsonl"
    report = prepare(listed, path, EFFORT, frames=8)
    first = path.read_bytes()
    assert [each.id for each in report.problems[:2]] == ["train/right/5", "test/down/2"]
    loaded = load_data(f"manifest:{path}")
    assert (loaded, loaded.hash) == (listed, replace(listed).hash)
    assert json.loads(first.splitlines()[0])["root"] == f"{tmp_path}/set"
    prepare(listed, path, EFFORT, frames=8)
    assert path.read_bytes() == first
    path.with_name("notes").write_text("my notes")
    for manifest, output in (replace(listed, name="other"), path), (listed, path.with_name("notes")):
        with pytest.raises(UsageError, match="exists and is not a manifest"):
            prepare(manifest, output, EFFORT, frames=8)
    assert path.read_bytes() == first


def test_segments_are_videos(listed, tmp_path):
    table = tmp_path / "t.csv"
    path = next(video.path for video in listed.videos if video.id == "train/down/4")
    table.write_text(f"path,label,start,end\n{path},a,0,0.4\n{path},b,0.4,0.8\n{path},b,30,40\n")
    report = prepare(load_data(f"csv:{table}"), tmp_path / "m.jsonl", EFFORT, frames=8)
    assert [row["with sound"] for row in report.classes["train"].values()] == [1, 1]
    assert "lies outside it" in report.problems[0].reason
    assert load_data(f"manifest:{tmp_path}/m.jsonl").videos == load_data(f"csv:{table}").videos


def test_nothing_to_read_is_no_data_set(listed, tmp_path):
    shutil.rmtree(tmp_path / "set")
    with pytest.raises(DataError, match="None of the 18 listed videos"):
        prepare(listed, tmp_path / "m.jsonl", EFFORT, frames=8)
    assert not (tmp_path / "m.jsonl").exists()


# ---- lists


@pytest.fixture
def server(monkeypatch):
    go_online(monkeypatch)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in {"lists/train.txt": "x", "lists/test.txt": "y", "lists/../../z.txt": "z"}.items():
            archive.writestr(name, text)
    with serving(Server()) as state:
        state.pages["/list.csv"] = b"a,1\n" * 1000
        state.pages["/lists.zip"] = content.getvalue()
        yield state


def listing(server: Server, name="list.csv", checksum=None) -> ListFile:
    return ListFile("list", name, f"{server.address}/{name}", checksum)


def test_a_list_is_fetched_and_checked(server, tmp_path):
    place, content = tmp_path / "new" / "list.csv", server.pages["/list.csv"]
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    fetch_list(listing(server, checksum=f"git:{digest}"), place)
    assert place.read_bytes() == content
    assert list(place.parent.iterdir()) == [place]


def test_an_archive_is_unpacked_and_stays_inside(server, tmp_path):
    place = tmp_path / "deep" / "lists"
    fetch_list(listing(server, "lists.zip"), place)
    texts = {path.name: path.read_text() for path in place.iterdir()}
    assert texts == {"train.txt": "x", "test.txt": "y", "z.txt": "z"}
    assert list(place.parent.iterdir()) == [place]


def test_what_is_not_the_list_is_thrown_away(server, tmp_path, monkeypatch):
    server.pages["/lists.zip"] = server.pages["/lists.zip"][:-40]
    for name, checksum, reason in (
        ("list.csv", "git:" + 40 * "0", "not the published list, its git is"),
        ("lists.zip", None, "not a zip file"),
        ("absent.csv", None, "404"),
    ):
        with pytest.raises(SystemSetupError, match=rf"not downloaded.*{reason}.*belong at"):
            fetch_list(listing(server, name, checksum), tmp_path / name.removesuffix(".zip"))
    count = len(server.asked)
    monkeypatch.setenv("CCL_OFFLINE", "1")
    with pytest.raises(SystemSetupError, match=r"CCL_OFFLINE is set.*belong at"):
        fetch_list(listing(server), tmp_path / "list.csv")
    assert len(server.asked) == count
    assert list(tmp_path.iterdir()) == []
