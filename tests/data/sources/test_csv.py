from __future__ import annotations

import logging

import pytest

from ccl_cli.data.sources.csv import load
from ccl_cli.errors import DataError


@pytest.fixture
def table(tmp_path):
    def make(text: str | bytes, name: str = "set.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return make


def rows(manifest):
    return [(v.id, manifest.classes[v.label], v.split, v.start, v.end) for v in manifest.videos]


def test_path_and_label_suffice(table, tmp_path):
    manifest = load(table("path,label\nclips/b.mp4,run\nclips/a.avi,kick\n"))
    manifest.validate()
    assert manifest.name == "set"
    assert rows(manifest) == [
        ("clips/b", "run", "train", None, None),
        ("clips/a", "kick", "train", None, None),
    ]
    assert manifest.classes == ("kick", "run")
    assert manifest.videos[0].path == tmp_path / "clips/b.mp4"


def test_all_columns_in_any_order_with_spaces_quotes_and_a_byte_order_mark(table):
    text = '\ufefflabel, end, path, split, start\n"jump, high",4.5,a.mp4,Validation,1\nrun,,b.mp4,,\n'
    assert rows(load(table(text))) == [
        ("a", "jump, high", "val", 1.0, 4.5),
        ("b", "run", "train", None, None),
    ]


def test_labels_may_be_absent(table):
    some = load(table("path,label,split\na.mp4,run,\nb.mp4,,\nc.mp4, ,test\n"))
    some.validate()
    assert (some.classes, [video.label for video in some.videos]) == (("run",), [0, None, None])
    none = load(table("path,split\na.mp4,train\nb.mp4,test\n"))
    none.validate(["train", "test"])
    assert (none.classes, [video.label for video in none.videos]) == ((), [None, None])


def test_numbers_as_labels_are_sorted_as_numbers(table):
    manifest = load(table("path,label\n" + "".join(f"{k}.mp4,{k}\n" for k in (10, 9, 2, 0))))
    assert manifest.classes == ("0", "2", "9", "10")
    assert load(table("path,label\na.mp4,10\nb.mp4,9\nc.mp4,x\n")).classes == ("10", "9", "x")


def test_stretches_of_one_file_are_different_videos(table):
    manifest = load(table("path,label,start,end\na.mp4,x,0,10\na.mp4,y,10,20.5\na.mp4,y,30,\nb.mp4,x,0,10\n"))
    manifest.validate()
    assert [video.id for video in manifest.videos] == ["a@0-10", "a@10-20.5", "a@30-", "b"]


def test_paths_from_anywhere(table, tmp_path):
    text = f"path,label\n{tmp_path}/in.mp4,x\n/far/away.mp4,x\n../up.mp4,y\n./here.mp4,y\n"
    manifest = load(table(text))
    manifest.validate()
    assert manifest.videos[0].id == "in"
    assert str(manifest.videos[1].path) == "/far/away.mp4"
    assert manifest.videos[2].id == "../up"
    assert manifest.videos[3].id == "here"
    elsewhere = load(table("path,label\na.mp4,x\n"), root=str(tmp_path / "videos"))
    assert elsewhere.videos[0].path == tmp_path / "videos/a.mp4"


def test_suffixes_stay_where_they_alone_differ(table):
    manifest = load(table("path,label\na.mp4,x\na.avi,y\n"))
    assert [video.id for video in manifest.videos] == ["a.mp4", "a.avi"]


@pytest.mark.parametrize(
    ("name", "mark", "options"),
    [("a.tsv", "\t", {}), ("a.csv", ";", {"delimiter": ";"}), ("a.txt", "\t", {"delimiter": "tab"})],
)
def test_delimiters(table, name, mark, options):
    text = "path,label,split\nv.mp4,x,test\n".replace(",", mark)
    assert rows(load(table(text, name), **options)) == [("v", "x", "test", None, None)]


def test_other_columns_are_named(table, caplog):
    with caplog.at_level(logging.INFO, "ccl"):
        load(table("path,label,strat,note\na.mp4,x,1,hello\n"))
    assert "columns not used: strat, note" in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no column 'path'"),
        ("path,label\n", "lists no video"),
        ("file,label\na.mp4,x\n", r"has no column 'path' \(columns: file, label\)"),
        ("path,label,label\na.mp4,x,y\n", "names a column twice"),
        ("path,label\na.mp4,x\nb.mp4\n", "line 3: fewer cells"),
        ("path,label\na.mp4,x,y\n", "line 2: more cells"),
        ("path,label\na.mp4,x\n ,x\n", "line 3: the path is empty"),
        ("path,label,split\na.mp4,x,dev\n", "line 2: 'dev' is not a split"),
        ("path,label,start\na.mp4,x,soon\n", "line 2: start 'soon' is not a number of seconds"),
        ("path,label,start\na.mp4,x,-1\n", "line 2: start '-1' is not a number of seconds"),
        ("path,label,end\na.mp4,x,nan\n", "line 2: end 'nan' is not a number of seconds"),
        ("path,label,end\na.mp4,x,inf\n", "line 2: end 'inf' is not a number of seconds"),
        ("path,label,start,end\na.mp4,x,5,5\n", "line 2: the segment ends at 5 s, before it begins"),
        ("path,label,end\na.mp4,x,0\n", "line 2: the segment ends at 0 s"),
        ("path,label\na.mp4,x\nb.mp4,x\n./a.mp4,y\n", "line 4: the same video as in line 2"),
        (b"path,label\n\xff\xfe.mp4,x\n", "is not a table of UTF-8 text"),
        (b'path,label\n"a.mp4,x\n', "is not a table of UTF-8 text"),
    ],
)
def test_mistakes_are_named_with_their_line(table, text, reason):
    with pytest.raises(DataError, match=reason):
        load(table(text))


def test_absent_tables_and_odd_delimiters(table, tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load(str(tmp_path / "absent.csv"))
    with pytest.raises(DataError, match="No table is named"):
        load("")
    with pytest.raises(DataError, match="is not one character"):
        load(table("path,label\na,b\n"), delimiter="::")
