"""`ccl index` and `ccl search`, on real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import table
from tests.report.pages import Reading


@pytest.fixture
def videos(videos):
    """Two of them with names that are not harmless."""
    shutil.copy(videos / "down/0.mp4", videos / "<script>alert(1)<.mp4")
    shutil.copy(videos / "right/0.mp4", videos / 'a"b\x1b[31m.mp4')
    return videos


@pytest.fixture
def library(ccl, run, videos):
    assert ccl("index", "videos", "--output", "library").code == 0


def test_index_says_what_it_did(ccl, run, videos):
    header = ["library", "videos", "read", "unchanged", "gone"]
    out = ccl("index", "videos", "--output", "library").out
    assert table(out) == [header, ["library", "8", "8", "0", "0"]]
    (videos / "down/0.mp4").unlink()
    (videos / "bad.mp4").touch()
    result = ccl("index", "--output", "library", "--json")
    assert result.code == 4
    expected = {"videos": 7, "added": 0, "removed": 1, "unchanged": 7, "unreadable": 1}
    assert json.loads(result.out) == {"folder": "library", **expected}
    assert "1 files could not be read" in result.err
    assert f"{videos / 'bad.mp4'}: it is empty (0 bytes)" in result.err
    out = ccl("index", "--output", "library", "--forget", "videos").out
    assert table(out)[1] == ["library", "0", "0", "0", "7"]


def test_search(ccl, library, videos):
    result = ccl("search", "videos/down/1.mp4", "--index", "library", "--top", "3")
    assert (result.code, result.err) == (0, "")
    header, *rows = table(result.out)
    assert header == ["video", "cosine", "query"]
    assert [row[2] for row in rows] == ["videos/down/1.mp4"] * 3
    cosines = [float(row[1]) for row in rows]
    assert cosines == sorted(cosines, reverse=True)
    assert "\x1b" not in ccl("search", "videos", "--index", "library").out
    (videos / "bad.mp4").write_text("no video")
    words = "search videos/bad.mp4 videos/down/1.mp4 --index library --json --top 2 --include-self"
    result = ccl(*words.split())
    assert result.code == 4
    bad, good = json.loads(result.out)
    assert bad.keys() == {"query", "error"}
    assert (good["query"], len(good["hits"])) == ("videos/down/1.mp4", 2)
    assert good["hits"][0] == {"video": str(videos / "down/1.mp4"), "cosine": 1.0}


def test_the_page_holds_everything_and_escapes_names(ccl, library, videos, tmp_path):
    (videos / "bad <i>.mp4").write_text("no video")
    (videos / "right/2.mp4").unlink()  # found, but gone since: shown without a picture
    result = ccl("search", "videos", "--index", "library", "--top", "6", "--html", "nearest.html")
    assert (result.code, result.out) == (4, "nearest.html\n")
    text = Path("nearest.html").read_text(encoding="utf-8")
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
    ("arguments", "code", "sentence"),
    [
        (["search", "videos", "--index", "nowhere"], 4, "There is no library at 'nowhere'."),
        (["index", "--output", "new"], 2, "There is nothing to index."),
        (["index", "videos", "--output", "videos"], 2, "is not a library, and not empty"),
    ],
)
def test_errors_are_sentences(ccl, library, arguments, code, sentence):
    result = ccl(*arguments)
    assert (result.code, result.out) == (code, "")
    assert sentence in result.err
    assert not Path("new").exists()


@pytest.mark.parametrize("run", [[], ["empty.safetensors"]], ids=["none", "no model"])
def test_without_a_model_no_folder_is_made(ccl, videos, run):
    Path("empty.safetensors").touch()
    assert ccl("index", *run, "videos", "--output", "new").code in (4, 6)
    assert not Path("new").exists()


def test_the_run_of_a_library_that_has_moved(ccl, run, library, videos):
    moved = str(shutil.move(run, "moved"))
    (videos / "new.mp4").hardlink_to(videos / "down/0.mp4")
    words = ["videos/new.mp4", "--index", "library"]
    result = ccl("search", *words)
    assert result.code == 4
    assert "Put its new path before the videos" in result.err
    assert ccl("search", moved, *words).code == 0


def test_approximate(ccl, library):
    words = ["search", "videos/down", "--index", "library", "--json"]
    exact = json.loads(ccl(*words).out)
    assert ccl("index", "--output", "library", "--approximate").code == 0
    approximate = json.loads(ccl(*words, "--approximate", "--nprobe", "4").out)
    for one, other in zip(approximate, exact, strict=True):
        assert {each["video"] for each in one["hits"]} == {each["video"] for each in other["hits"]}
