from __future__ import annotations

import logging

import pytest

from ccl_cli.data.sources.csv import load
from ccl_cli.errors import DataError


@pytest.fixture
def table(tmp_path):
    def make(text: str, name: str = "set.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return str(path)

    return make


def rows(manifest):
    manifest.validate([])
    return [
        (v.id, None if v.label is None else manifest.classes[v.label], v.split, v.start, v.end)
        for v in manifest.videos
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "path,label\nclips/b.mp4,run\n\nclips/a.avi,kick\n",
            [("clips/b", "run", "train", None, None), ("clips/a", "kick", "train", None, None)],
        ),
        (  # columns in any order, spaces, quotes and a byte order mark
            '\ufefflabel, end, path, split, start\n"jump, high",4.5,a.mp4,Validation,1\nrun,, b.mp4 ,,\n',
            [("a", "jump, high", "val", 1.0, 4.5), ("b", "run", "train", None, None)],
        ),
        (
            "path,split\na.mp4,train\nb.mp4, test \n",
            [("a", None, "train", None, None), ("b", None, "test", None, None)],
        ),
        (
            "path,label,split\na.mp4,run,\nb.mp4,,\n",
            [("a", "run", "train", None, None), ("b", None, "train", None, None)],
        ),
        (  # segments of one file are different videos
            "path,label,start,end\na.mp4,x,0,10.5\na.mp4,y,30,\nb.mp4,x,0,10\n",
            [
                ("a@0-10.5", "x", "train", 0, 10.5),
                ("a@30-", "y", "train", 30, None),
                ("b", "x", "train", 0, 10),
            ],
        ),
        (  # a suffix stays where it alone differs
            "path,label\na.mp4,x\na.avi,y\n",
            [("a.mp4", "x", "train", None, None), ("a.avi", "y", "train", None, None)],
        ),
    ],
)
def test_rows(table, text, expected):
    manifest = load(table(text))
    assert manifest.name == "set"
    assert rows(manifest) == expected


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "2", "0"], ("0", "2", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["1", "01"], ("01", "1")),
    ],
)
def test_classes_that_are_numbers_are_sorted_as_numbers(table, labels, classes):
    text = "path,label\n" + "".join(f"{number}.mp4,{label}\n" for number, label in enumerate(labels))
    assert load(table(text)).classes == classes


def test_paths_from_anywhere(table, tmp_path):
    text = f"path\n{tmp_path}/in.mp4\n/far/away.mp4\n../up.mp4\n./here.mp4\n"
    manifest = load(table(text))
    assert [video.id for video in manifest.videos][::2] == ["in", "../up"]
    assert [video.path for video in manifest.videos][::3] == [tmp_path / "in.mp4", tmp_path / "here.mp4"]
    elsewhere = load(table("path\na.mp4\n"), root=str(tmp_path / "videos"))
    assert elsewhere.videos[0].path == tmp_path / "videos/a.mp4"


@pytest.mark.parametrize(
    ("name", "mark", "options"),
    [("a.tsv", "\t", {}), ("a.csv", ";", {"delimiter": ";"}), ("a.txt", "\t", {"delimiter": "tab"})],
)
def test_delimiters_and_unknown_columns(table, caplog, name, mark, options):
    with caplog.at_level(logging.INFO, "ccl"):
        manifest = load(table("path,label,note,split\nv.mp4,x,1,test\n".replace(",", mark), name), **options)
    assert rows(manifest) == [("v", "x", "test", None, None)]
    assert "columns not used: note" in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "path"),
        ("path,label\n", "no video"),
        ("file,label\na.mp4,x\n", r"path.*\(file, label\)"),
        ("path,label,label\na.mp4,x,y\n", "column"),
        ("path,label\na.mp4,x\nb.mp4\n", "1 cells.*b.mp4"),
        ("path,label\na.mp4,x,y\n", "3 cells.*a.mp4"),
        ("path,label\na.mp4,x\n ,x\n", "without a path"),
        ("path,label,split\na.mp4,x,dev\n", "'dev' is not a split"),
        ("path,label,start\na.mp4,x,soon\n", "'soon'"),
        ("path,label,start,end\na.mp4,x,5,5\n", "segment of 'a'"),
        ("path,label\na.mp4,x\nb.mp4,x\n./a.mp4,y\n", "more than once"),
        ("path,label\n\udcff.mp4,x\n", "UTF-8"),
        ('path,label\n"a.mp4,x\n', "not a table"),
    ],
)
def test_mistakes_are_named(table, text, reason):
    with pytest.raises(DataError, match=reason):
        load(table(text)).validate()


def test_absent_tables_and_odd_delimiters(table, tmp_path):
    for location, options, reason in (
        (str(tmp_path / "absent.csv"), {}, "cannot be read: No such file"),
        ("", {}, "cannot be read"),
        (table("path,label\na,b\n"), {"delimiter": "::"}, "delimiter"),
    ):
        with pytest.raises(DataError, match=reason):
            load(location, **options)
