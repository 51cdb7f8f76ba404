from __future__ import annotations

import os
from pathlib import Path

import pytest

from ccl_cli.data.video_paths import list_videos
from ccl_cli.errors import DataError
from tests.conftest import close_folder
from tests.data.media import touch


@pytest.fixture
def folder(tmp_path):
    names = ("b/2.mp4", "b/10.mp4", "a.AVI", "b/c/x.webm", "b/notes.txt", ".hidden/h.mp4", "b/.x.mp4")
    touch(*(tmp_path / "set" / name for name in names))
    return Path("set")  # as a user names it: the tests run in tmp_path


def test_folders_are_walked_in_a_stable_order_and_paths_stay_as_they_were_named(folder):
    (folder / "b/up").symlink_to(folder.absolute())  # is not followed for ever
    listed = list_videos(folder)
    assert listed.names == ["set/a.AVI", "set/b/10.mp4", "set/b/2.mp4", "set/b/c/x.webm"]
    assert [video.id for video in listed.videos] == ["a", "b/10", "b/2", "b/c/x"]
    assert list_videos([folder.absolute()]).names == [os.path.abspath(name) for name in listed.names]
    assert listed.closed == {}


def test_a_file_that_is_named_is_taken_once_whatever_it_is_called_and_whether_it_is_there(folder):
    named = [folder / "b/2.mp4", "gone.mp4", folder / "b/notes.txt", folder, folder.absolute() / "b"]
    names = ["b/2.mp4", "b/notes.txt", "a.AVI", "b/10.mp4", "b/c/x.webm"]
    assert list_videos(named).names == ["set/b/2.mp4", "gone.mp4", *(f"set/{name}" for name in names[1:])]


def test_ids_are_unique_over_several_folders(folder, tmp_path):
    touch(*(tmp_path / "other" / name for name in ("b/2.mp4", "b/2.avi", "z.mp4")))
    ids = [video.id for video in list_videos([folder, Path("other")]).videos]
    assert ids == ["a", "b/10", "set/b/2.mp4", "b/c/x", "z", "b/2.avi", "other/b/2.mp4"]


def test_a_folder_without_videos_or_that_cannot_be_looked_into_is_named(folder, tmp_path, monkeypatch):
    touch(tmp_path / "empty/readme.txt")
    with pytest.raises(DataError, match="The folder 'empty' holds no videos"):
        list_videos("empty")
    close_folder(monkeypatch, "/c")
    for named, count in (folder, 3), (folder / "b/c", 0):
        listed = list_videos([named])
        assert len(listed.videos) == count
        assert listed.closed == {"set/b/c": "it cannot be looked into: Permission denied"}
