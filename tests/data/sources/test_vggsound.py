from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import pytest

from ccl_cli.data.sources.vggsound import load
from ccl_cli.errors import DataError
from tests.data.media import touch
from tests.data.sources.refusals import refusal

LIST = "vggsound.csv"
ROWS = [
    ("---g-f_I2yQ", 1, "people marching", "test"),
    ("--0PQM4-hqg", 30, "waterfall burbling", "train"),
    ("3qesirWAGt4", 20, "vehicle horn, car horn, honking", "train"),
]
TEXT = """---g-f_I2yQ,1,people marching,test
--0PQM4-hqg,30,waterfall burbling,train
3qesirWAGt4,20,"vehicle horn, car horn, honking",train
"""
IDS = ["---g-f_I2yQ_000001", "--0PQM4-hqg_000030", "3qesirWAGt4_000020"]


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / LIST).write_text(TEXT)
    touch(*(tmp_path / f"{name}.mp4" for name in IDS))
    return tmp_path


def test_the_published_format(root):
    manifest = load(str(root))
    manifest.validate(["train", "test"])
    assert manifest.name == "vggsound"
    assert manifest.classes == ("people marching", "vehicle horn, car horn, honking", "waterfall burbling")
    assert [video.id for video in manifest.videos] == IDS
    assert [video.label for video in manifest.videos] == [0, 2, 1]
    assert [video.split for video in manifest.videos] == ["test", "train", "train"]
    # The files are the ten seconds already.
    assert {(video.start, video.end) for video in manifest.videos} == {(None, None)}
    assert not [*manifest.missing("train"), *manifest.missing("test")]


@pytest.mark.parametrize("naming", ["{}_{:06}", "{}_{}", "{}_{}_{end}", "{}_{}000_{end}000"])
@pytest.mark.parametrize(("folder", "suffix"), [("", ".mp4"), ("{split}", ".webm")])
def test_namings_and_layouts(tmp_path, naming, folder, suffix):
    (tmp_path / LIST).write_text(TEXT)
    paths = []
    for key, start, _, split in ROWS:
        name = naming.format(key, start, end=start + 10)
        paths.append(tmp_path / folder.format(split=split) / f"{name}{suffix}")
    touch(*paths)
    manifest = load(str(tmp_path))
    assert [video.path for video in manifest.videos] == paths
    assert [video.id for video in manifest.videos] == IDS


def test_a_listed_clip_that_is_not_there_counts_as_missing(root):
    (root / f"{IDS[1]}.mp4").unlink()
    touch(root / "3qesirWAGt5_000020.mp4")
    manifest = load(str(root))
    assert [video.path for video in manifest.missing("train")] == [root / f"{IDS[1]}.mp4"]
    assert not manifest.missing("test")


def test_the_list_inside_beside_or_elsewhere_and_the_data_folder(tmp_path, monkeypatch):
    home = tmp_path / "d" / "vggsound"
    touch(home / f"{IDS[0]}.mp4")
    monkeypatch.setenv("CCL_DATA", str(tmp_path / "d"))
    for folder in (home, home.parent):
        (folder / LIST).write_text(f"# YouTube ID, start seconds, label,train/test split.\n{TEXT}\n")
        assert len(load("").videos) == 3
        (folder / LIST).unlink()
    (tmp_path / "other.csv").write_text("\ufeff" + TEXT.replace("\n", "\r\n"), encoding="utf-8")
    assert [video.id for video in load("", lists=str(tmp_path / "other.csv")).videos] == IDS


def test_each_absent_thing_is_named_with_where_to_get_it_and_put_it(tmp_path, monkeypatch):
    home = tmp_path / "my data" / "vggsound"
    monkeypatch.setenv("CCL_DATA", str(tmp_path / "my data"))
    page, command = "robots.ox.ac.uk/~vgg/data/vggsound/", f"curl -L -o '{home}'/{LIST} https://raw."

    nothing = refusal(load)
    assert "its list" in nothing
    assert "its clips" in nothing
    assert command in nothing
    assert page in nothing
    touch(home / "x.mp4")
    assert command in refusal(load)
    assert page not in refusal(load)
    (home / LIST).write_text(TEXT)
    assert command not in refusal(load)
    assert page in refusal(load)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,1,dog barking", "3 cells in place of 4"),
        ("a,1,vehicle horn, car horn,train", "5 cells in place of 4"),
        ("../../etc/x,1,dog barking,train", "'../../etc/x' is not a YouTube id"),
        (",1,dog barking,train", "'' is not a YouTube id"),
        ("a,-1,dog barking,train", "the start '-1' is not a whole number of seconds"),
        ("a,1.5,dog barking,train", "the start '1.5'"),
        ("a,²,dog barking,train", "the start '²'"),
        ("a," + "9" * 5000 + ",dog barking,train", "the start '9"),
        ("a,1, ,train", "the label is empty"),
        ("a,1,dog barking,validation", "'validation' is neither train nor test"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(root, line, said):
    with (root / LIST).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError) as caught:
        load(str(root))
    assert f"'{root / LIST}', line 4: " in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize("text", [b'a,1,"dog,train\n', b"a,1,\xff,train\n", b'a,1,"x"y,train\n'])
def test_what_is_no_table_of_text(root, text):
    (root / LIST).write_bytes(text)
    with pytest.raises(DataError, match=r"vggsound.csv' is not a table of UTF-8 text"):
        load(str(root))


def test_a_clip_listed_twice_is_found_when_the_rows_are_checked(root):
    (root / LIST).write_text(TEXT + TEXT.splitlines()[0] + "\n")
    with pytest.raises(DataError, match=f"lists '{IDS[0]}' more than once"):
        load(str(root)).validate()


@pytest.fixture(scope="module")
def official_test_list(shared) -> list[tuple[str, str]]:
    """Names and labels of the publisher's own test list, which comes in another form."""
    with (shared / "data/splits/vggsound_test.csv").open(newline="") as file:
        return [(row[0].removesuffix(".mp4"), row[1]) for row in csv.reader(file)]


def test_the_publishers_test_list(tmp_path, official_test_list):
    with (tmp_path / LIST).open("w", newline="") as file:
        writer = csv.writer(file)
        for name, label in official_test_list:
            writer.writerow([name[:11], int(name[12:]), label, "test"])
    touch(tmp_path / f"{official_test_list[0][0]}.mp4")
    manifest = load(str(tmp_path))
    manifest.validate(["test"])
    assert len(manifest.classes) == 309
    assert [video.id for video in manifest.videos] == [name for name, _ in official_test_list]
    assert len(manifest.missing("test")) == 15446 - 1


@pytest.mark.long
def test_two_hundred_thousand_rows_load_in_seconds(tmp_path):
    folder = tmp_path / "video"
    folder.mkdir()
    with (tmp_path / LIST).open("w") as file:
        for number in range(200_000):
            file.write(
                f"{number:011},{number % 500},class {number % 309},{'test' if number % 13 == 0 else 'train'}\n"
            )
            os.close(os.open(folder / f"{number:011}_{number % 500:06}.mp4", os.O_CREAT))
    begin = time.process_time()
    manifest = load(str(tmp_path))
    manifest.validate(["train", "test"])
    assert not manifest.missing("train")
    assert time.process_time() - begin < 20
