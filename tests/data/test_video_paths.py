from __future__ import annotations

import os
from pathlib import Path

import pytest

from ccl_cli.data.video_paths import list_videos
from ccl_cli.errors import DataError
from tests.conftest import close_folder


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2.mp4", "b/10.mp4", "a.AVI", "b/c/x.webm", "b/notes.txt", ".hidden/h.mp4", "b/.x.mp4"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return Path("set")  # as a user names it: the tests run in tmp_path


def test_folders_are_walked_in_a_stable_order_and_paths_stay_as_they_were_named(folder):
    raw = list_videos([folder])
    assert raw.names == ["set/a.AVI", "set/b/10.mp4", "set/b/2.mp4", "set/b/c/x.webm"]
    assert [video.id for video in raw.videos] == ["a", "b/10", "b/2", "b/c/x"]
    assert list_videos([folder.absolute()]).names == [os.path.abspath(name) for name in raw.names]
    assert raw.closed == {}


def test_a_file_that_is_named_is_taken_whatever_it_is_called_and_whether_it_is_there(folder):
    assert list_videos([folder / "b/notes.txt", Path("gone.mp4")]).names == ["set/b/notes.txt", "gone.mp4"]


def test_a_file_that_is_named_twice_is_listed_once(folder):
    raw = list_videos([folder / "b/2.mp4", folder, folder.absolute() / "b"])
    assert raw.names == ["set/b/2.mp4", "set/a.AVI", "set/b/10.mp4", "set/b/c/x.webm"]


def test_ids_are_unique_over_several_folders(folder, tmp_path):
    for name in ("other/b/2.mp4", "other/b/2.avi", "other/z.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    ids = [video.id for video in list_videos([folder, Path("other")]).videos]
    assert ids == ["a", "b/10", "set/b/2.mp4", "b/c/x", "z", "b/2.avi", "other/b/2.mp4"]


def test_a_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/readme.txt").touch()
    with pytest.raises(DataError, match="The folder 'empty' holds no videos"):
        list_videos([Path("empty")])


def test_a_link_to_a_folder_above_does_not_go_round_for_ever(folder):
    (folder / "b/up").symlink_to(folder.absolute())
    assert len(list_videos([folder]).videos) == 4


def test_a_folder_that_cannot_be_looked_into_is_named(folder, monkeypatch):
    close_folder(monkeypatch, "/c")
    raw = list_videos([folder])
    assert len(raw.videos) == 3
    assert raw.closed == {"set/b/c": "it cannot be looked into: Permission denied"}
    assert list_videos([folder / "b/c"]).closed == {"set/b/c": "it cannot be looked into: Permission denied"}
