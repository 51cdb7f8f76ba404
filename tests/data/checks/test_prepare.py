from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from dataclasses import replace

import pytest

from ccl_cli.data.checks.check import PROBLEMS
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
    """18 videos, of which one is missing, one empty, two silent and two without a track."""
    shutil.copytree(clips_folder / "set", tmp_path / "set")
    manifest = load_data(f"folder:{tmp_path}/set")
    by_id = {video.id: video for video in manifest.videos}
    by_id["train/right/5"].path.unlink()
    by_id["test/down/2"].path.write_bytes(b"")
    return manifest


def test_the_manifest_is_its_source(listed, tmp_path):
    path = tmp_path / "m.jsonl"
    report = prepare(listed, path, EFFORT, frames=8)
    assert {problem: report.splits["train"][problem] for problem in PROBLEMS[:4]} == {
        "missing": 1,
        "corrupt": 0,
        "silent": 2,
        "no track": 2,
    }
    assert [(each.id, each.reason) for each in report.problems if each.problem == "corrupt"] == [
        ("test/down/2", "it is empty (0 bytes)")
    ]
    fresh = replace(listed)
    loaded = load_data(f"manifest:{path}")
    assert (loaded, loaded.hash) == (fresh, fresh.hash)
    assert [video.id for video in loaded.missing("train")] == ["train/right/5"]
    header = json.loads(path.read_text().splitlines()[0])
    assert (header["hash"], header["root"]) == (fresh.hash, f"{tmp_path}/set")


def test_stretches_are_videos(listed, tmp_path):
    table = tmp_path / "t.csv"
    path = next(video.path for video in listed.videos if video.id == "train/down/4")
    table.write_text(f"path,label,start,end\n{path},a,0,0.4\n{path},b,0.4,0.8\n{path},b,30,40\n")
    report = prepare(load_data(f"csv:{table}"), tmp_path / "m.jsonl", EFFORT, frames=8)
    assert [row["with sound"] for row in report.classes["train"].values()] == [1, 1]
    assert "lies outside it" in report.problems[0].reason
    assert load_data(f"manifest:{tmp_path}/m.jsonl").videos == load_data(f"csv:{table}").videos


def test_it_replaces_its_own_manifest_and_nothing_else(listed, tmp_path):
    path = tmp_path / "m.jsonl"
    prepare(listed, path, EFFORT, frames=8)
    first = path.read_bytes()
    prepare(listed, path, EFFORT, frames=8)
    assert path.read_bytes() == first
    with pytest.raises(UsageError, match="manifest of 'set', not of 'other'"):
        prepare(replace(listed, name="other"), path, EFFORT, frames=8)
    path.write_text("my notes")
    with pytest.raises(UsageError, match="is not a manifest"):
        prepare(listed, path, EFFORT, frames=8)
    assert path.read_text() == "my notes"


def test_nothing_to_read_is_no_data_set(listed, tmp_path):
    shutil.rmtree(tmp_path / "set")
    with pytest.raises(DataError, match="None of the 18 listed videos"):
        prepare(listed, tmp_path / "m.jsonl", EFFORT, frames=8)
    assert not (tmp_path / "m.jsonl").exists()


# ---- lists


@pytest.fixture
def server(monkeypatch):
    go_online(monkeypatch)
    with serving(Server()) as state:
        state.pages["/list.csv"] = b"a,1\n" * 1000
        state.pages["/lists.zip"] = packed(
            {"lists/train.txt": "x", "lists/test.txt": "y", "lists/../../z.txt": "z"}
        )
        yield state


def packed(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def listing(server: Server, name="list.csv", checksum=None) -> ListFile:
    return ListFile("list", name, f"{server.address}/{name}", checksum)


def git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_a_list_is_fetched_and_checked(server, tmp_path):
    place = tmp_path / "new" / "list.csv"
    fetch_list(listing(server, checksum=f"git:{git(server.pages['/list.csv'])}"), place)
    assert place.read_bytes() == server.pages["/list.csv"]
    assert list(place.parent.iterdir()) == [place]


def test_other_bytes_are_thrown_away(server, tmp_path):
    with pytest.raises(SystemSetupError, match="not the published list: its git is"):
        fetch_list(listing(server, checksum="git:" + 40 * "0"), tmp_path / "list.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_unpacked_and_stays_inside(server, tmp_path):
    place = tmp_path / "deep" / "lists"
    fetch_list(listing(server, "lists.zip"), place)
    assert {path.name: path.read_text() for path in place.iterdir()} == {
        "train.txt": "x",
        "test.txt": "y",
        "z.txt": "z",
    }
    assert list(place.parent.iterdir()) == [place]


def test_what_is_no_archive(server, tmp_path):
    server.pages["/lists.zip"] = server.pages["/lists.zip"][:-40]
    with pytest.raises(SystemSetupError, match="not a complete zip archive"):
        fetch_list(listing(server, "lists.zip"), tmp_path / "lists")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_fetched_against_the_users_will(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_OFFLINE", "1")
    with pytest.raises(SystemSetupError, match=r"CCL_OFFLINE is set.*belong at"):
        fetch_list(listing(server), tmp_path / "list.csv")
    assert server.asked == []
