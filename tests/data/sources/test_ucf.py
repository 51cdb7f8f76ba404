from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.data.sources.ucf import load_ucf51, load_ucf101
from ccl_cli.errors import DataError
from tests.data.sources.refusals import refusal

LISTED = {
    "train": [
        "HammerThrow/v_HammerThrow_g08_c01",
        "Hammering/v_Hammering_g08_c01",
        "Biking/v_Biking_g08_c01",
    ],
    "test": ["HammerThrow/v_HammerThrow_g01_c01", "HandstandPushups/v_HandStandPushups_g01_c01"],
}
EVERY = [*LISTED["train"], *LISTED["test"]]


def write_lists(folder: Path, split: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, names in LISTED.items():
        mark = " 1" if part == "train" else ""
        (folder / f"{part}list{split:02}.txt").write_text("".join(f"{name}.avi{mark}\r\n" for name in names))


def write_videos(root: Path, names=EVERY, *, flat=False, suffix=".avi") -> None:
    paths = [root / ((name.rpartition("/")[2] if flat else name) + suffix) for name in names]
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        path.write_bytes(b"x")


@pytest.fixture(scope="module")
def official(tmp_path_factory, shared) -> Path:
    """The official lists beside a small file for every listed video."""
    root = tmp_path_factory.mktemp("official")
    lists = shared / "data/splits/ucfTrainTestlist"
    for part in ("train", "test"):
        names = [line.split()[0][:-4] for line in (lists / f"{part}list01.txt").read_text().splitlines()]
        write_videos(root / "UCF-101", names)
    (root / "ucfTrainTestlist").symlink_to(lists)
    return root


def test_the_official_numbers(official, shared):
    lists = shared / "data/splits/ucfTrainTestlist"
    whole = load_ucf101(str(official))
    whole.validate(["train", "test"])
    assert (len(whole.split("train")), len(whole.split("test"))) == (9537, 3783)
    assert list(whole.classes) == [
        line.split()[1] for line in (lists / "classInd.txt").read_text().splitlines()
    ]
    part = load_ucf51(str(official))
    part.validate(["train", "test"])
    assert len(part.classes) == 51
    assert (len(part.split("train")), len(part.split("test"))) == (4901, 1944)
    assert not [*part.missing("train"), *part.missing("test")]


def test_all_but_eight_videos_of_ucf51_have_the_authors_features(official, shared):
    names = set(np.load(shared / "data/features/ucf51_cnn14_emb512.npz")["names"].tolist())
    manifest = load_ucf51(str(official))
    absent = [video for video in manifest.videos if video.id not in names]
    assert len(manifest.videos) - len(absent) == len(names) == 6837
    assert len(absent) == 8
    assert {video.split for video in absent} == {"train"}  # 4,893 training videos with features


@pytest.mark.parametrize(("split", "train", "test"), [(2, 4930, 1915), (3, 4945, 1900)])
def test_the_other_official_splits(official, split, train, test):
    manifest = load_ucf51(str(official), split=split)
    assert manifest.name == f"ucf51-split{split}"
    assert (len(manifest.split("train")), len(manifest.split("test"))) == (train, test)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_layouts_and_formats(tmp_path, flat, suffix):
    write_lists(tmp_path / "ucfTrainTestlist")
    write_videos(tmp_path / "UCF-101", flat=flat, suffix=suffix)
    manifest = load_ucf101(str(tmp_path / "UCF-101"))
    manifest.validate(["train", "test"])
    assert [video.id for video in manifest.videos] == EVERY
    assert all(video.path.is_file() and video.path.suffix == suffix for video in manifest.videos)
    assert manifest.classes == ("Biking", "Hammering", "HammerThrow", "HandstandPushups")
    assert len(load_ucf51(str(tmp_path)).videos) == 4  # Biking has no sound


def test_originals_go_before_copies(tmp_path):
    write_lists(tmp_path / "ucfTrainTestlist")
    for suffix in (".avi", ".mkv", ".mp4"):
        write_videos(tmp_path / "UCF-101", suffix=suffix)
    assert {video.path.suffix for video in load_ucf101(str(tmp_path)).videos} == {".avi"}


@pytest.mark.parametrize("name", ["UCF-101", "UCF101", "ucf101"])
def test_the_data_folder_is_searched(tmp_path, monkeypatch, name):
    write_lists(tmp_path / "d" / "ucfTrainTestlist")
    write_videos(tmp_path / "d" / name)
    monkeypatch.setenv("CCL_DATA", str(tmp_path / "d"))
    assert len(load_ucf101("").videos) == 5
    monkeypatch.delenv("CCL_DATA")
    (tmp_path / "d").rename(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert len(load_ucf101("").videos) == 5


def test_lists_inside_beside_or_elsewhere(tmp_path):
    root = tmp_path / "videos"
    write_videos(root)
    for lists in (root / "ucfTrainTestlist", tmp_path / "ucfTrainTestlist"):
        write_lists(lists)
        assert len(load_ucf101(str(root)).videos) == 5
        lists.rename(tmp_path / "elsewhere")
        assert len(load_ucf101(str(root), lists=str(tmp_path / "elsewhere")).videos) == 5
        for path in (tmp_path / "elsewhere").iterdir():
            path.unlink()
        (tmp_path / "elsewhere").rmdir()


@pytest.mark.parametrize("flat", [False, True])
def test_a_listed_video_that_is_not_there_counts_as_missing(tmp_path, flat):
    write_lists(tmp_path / "ucfTrainTestlist")
    write_videos(tmp_path / "UCF-101", EVERY[:3], flat=flat)
    manifest = load_ucf101(str(tmp_path))
    assert len(manifest.split("test")) == 2
    home = tmp_path / "UCF-101" / ("" if flat else "HammerThrow")
    assert manifest.missing("test")[0].path == home / "v_HammerThrow_g01_c01.avi"
    assert len(manifest.missing("test")) == 2
    assert not manifest.missing("train")


def test_each_absent_thing_is_named_with_the_commands_that_fetch_it(tmp_path, monkeypatch):
    home = tmp_path / "my data"
    monkeypatch.setenv("CCL_DATA", str(home))
    videos, lists = "UCF101.rar && unrar x UCF101.rar", "UCF101TrainTestSplits-RecognitionTask.zip && unzip"

    nothing = refusal(load_ucf51)
    assert "https://www.crcv.ucf.edu/data/UCF101.php" in nothing
    assert f"cd {shlex.quote(str(home))}" in nothing
    assert videos in nothing
    assert lists in nothing
    assert str(home / "UCF-101") in nothing
    assert str(home / "ucfTrainTestlist") in nothing
    write_videos(home / "UCF-101")
    assert videos not in refusal(load_ucf51)
    assert lists in refusal(load_ucf51)
    (home / "UCF-101").rename(home / "away")
    write_lists(home / "ucfTrainTestlist")
    assert videos in refusal(load_ucf51)
    assert lists not in refusal(load_ucf51)
    (home / "UCF-101").mkdir()
    assert videos in refusal(load_ucf51)  # a folder without a single listed video is as good as none
    (home / "UCF-101").rmdir()
    (home / "away").rename(home / "UCF-101")
    assert len(load_ucf51("").videos) == 4


def test_broken_lists_are_named(tmp_path):
    write_videos(tmp_path / "UCF-101")
    lists = tmp_path / "ucfTrainTestlist"
    write_lists(lists)
    with pytest.raises(DataError, match=r"trainlist02.txt' cannot be read: No such file"):
        load_ucf101(str(tmp_path), split=2)
    (lists / "testlist01.txt").write_text("\nHammering/v_a.avi\nnonsense\n")
    with pytest.raises(DataError, match=r"testlist01.txt', line 3: 'nonsense' is not <class>/<video>.avi"):
        load_ucf101(str(tmp_path))
