"""`ccl index` and `ccl search`, on real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.models import write_run
from tests.report.pages import Reading


@pytest.fixture
def run(clips_folder, tmp_path):
    return write_run(tmp_path / "runs" / "mine" / "a", clips_folder / "set")


@pytest.fixture
def videos(clips_folder, tmp_path):
    folder = shutil.copytree(clips_folder / "set" / "test", tmp_path / "videos")
    shutil.copy(folder / "down/0.mp4", folder / "<script>alert(1)<.mp4")
    shutil.copy(folder / "right/0.mp4", folder / 'a"b\x1b[31m.mp4')
    return folder


@pytest.fixture
def library(ccl, run, videos):
    assert ccl("index", "videos", "--output", "library").code == 0


def table(out):
    return [line.split() for line in out.splitlines()]


def test_index_says_what_it_did(ccl, run, videos):
    assert table(ccl("index", "videos", "--output", "library").out) == [
        ["library", "videos", "read", "unchanged", "gone"],
        ["library", "8", "8", "0", "0"],
    ]
    (videos / "down/0.mp4").unlink()
    (videos / "bad.mp4").touch()
    result = ccl("index", "--output", "library", "--json")
    assert result.code == 4
    assert json.loads(result.out) == {
        "folder": "library",
        "videos": 7,
        "added": 0,
        "removed": 1,
        "unchanged": 7,
        "unreadable": 1,
    }
    assert "Error: 1 cannot be read; the others are done." in result.err.splitlines()
    assert f"{videos / 'bad.mp4'}: it is empty (0 bytes)" in result.err
    assert table(ccl("index", "--output", "library", "--forget", "videos").out)[1] == [
        "library",
        "0",
        "0",
        "0",
        "7",
    ]


def test_search(ccl, library, videos):
    result = ccl("search", "videos/down/1.mp4", "--index", "library", "--top", "3")
    assert (result.code, result.err) == (0, "")
    header, *rows = table(result.out)
    assert header == ["found", "cosine", "query"]
    assert len(rows) == 3
    assert rows[0][2] == "videos/down/1.mp4"
    cosines = [float(row[1]) for row in rows]
    assert cosines == sorted(cosines, reverse=True)
    assert "\x1b" not in ccl("search", "videos", "--index", "library").out


def test_json_is_one_object_per_query(ccl, library, videos):
    (videos / "bad.mp4").write_text("no video")
    result = ccl(
        "search",
        "videos/bad.mp4",
        "videos/down/1.mp4",
        "--index",
        "library",
        "--json",
        "--top",
        "2",
        "--keep-self",
    )
    assert result.code == 4
    bad, good = (json.loads(line) for line in result.out.splitlines())
    assert bad.keys() == {"query", "error"}
    assert good["query"] == "videos/down/1.mp4"
    assert good["found"][0] == {"video": str(videos / "down/1.mp4"), "cosine": 1.0}
    assert len(good["found"]) == 2


def test_the_page_holds_everything_and_escapes_names(ccl, library, videos, tmp_path):
    (videos / "bad <i>.mp4").write_text("no video")
    (videos / "right/2.mp4").unlink()  # found, but gone since: shown without a picture
    result = ccl("search", "videos", "--index", "library", "--top", "6", "--html", "found.html")
    assert (result.code, result.out) == (4, "found.html\n")
    text = Path("found.html").read_text(encoding="utf-8")
    page = Reading(text)
    assert page.tags.count("img") >= 40
    assert {reference[:22] for reference in page.references} == {"data:image/jpeg;base64"}
    assert "script" not in page.tags
    assert "i" not in page.tags
    assert "&lt;script&gt;alert(1)&lt;" in text
    assert "\x1b" not in text
    assert "bad &lt;i&gt;.mp4: it is not a complete media file" in text
    assert "no picture" in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["search", "videos"], 2, "Missing option '--index'"),
        (["search", "videos", "--index", "nowhere"], 4, "There is no library at 'nowhere'."),
        (["search", "videos", "--index", "library", "--faiss"], 4, "has no index for approximate search"),
        (["index", "videos"], 2, "Missing option '--output'"),
        (["index", "--output", "new"], 2, "Nothing to index."),
        (["index", "gone", "--output", "new"], 4, "There is no '"),
        (["index", "videos", "--output", "videos"], 2, "is not a library, and not empty"),
    ],
)
def test_errors_are_sentences(ccl, library, arguments, code, said):
    result = ccl(*arguments)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert not Path("new").exists()


@pytest.mark.parametrize("model", [[], ["--model", "videos/down/0.mp4"]], ids=["none", "no model"])
def test_without_a_model_no_folder_is_made(ccl, videos, model):
    assert ccl("index", "videos", "--output", "new", *model).code in (4, 6)
    assert not Path("new").exists()


def test_faiss(ccl, library):
    words = ["search", "videos/down", "--index", "library", "--json"]
    exact = ccl(*words).out.splitlines()
    result = ccl("index", "--output", "library", "--faiss")
    assert (result.code, result.err) == (0, "")
    about = ccl(*words, "--faiss", "--probes", "4").out.splitlines()
    for one, other in zip(map(json.loads, about), map(json.loads, exact), strict=True):
        assert {each["video"] for each in one["found"]} == {each["video"] for each in other["found"]}
