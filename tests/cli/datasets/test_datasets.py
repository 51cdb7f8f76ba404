from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ccl_cli import registry
from ccl_cli.data.sources import load_data, ucf
from tests.cli.conftest import table
from tests.data.media import touch
from tests.helpers.plugin_folder import install
from tests.helpers.web import Server, go_online, serving

OWN = ["activitynet", "clips", "csv", "folder", "manifest", "synthetic", "ucf101", "ucf51", "vggsound"]


@pytest.fixture
def videos(clips_folder, tmp_path) -> Path:
    """18 videos in a folder of the test's own."""
    return Path(shutil.copytree(clips_folder / "set", tmp_path / "set"))


def test_every_source_says_what_to_type_and_a_broken_one_costs_a_line(ccl, tmp_path, monkeypatch):
    install(
        tmp_path / "site",
        "acme_data",
        "[ccl.datasets]\nacme = acme_source:load\nbroken = acme_broken:load\n",
        modules={
            "acme_source": 'def load(location):\n    """Films of ACME.\n\n    More.\n    """\n',
            "acme_broken": "raise RuntimeError('half installed')\n",
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    registry._scan.cache_clear()
    result = ccl("data", "ls", "--json")
    sources = {each["name"]: each for each in json.loads(result.out)}
    assert {*OWN, "acme"} <= sources.keys()
    for name in OWN:
        assert sources[name]["example"].partition(":")[0].partition("?")[0] == name
        assert sources[name]["about"].endswith(".")
    for name in ("activitynet", "ucf101", "ucf51", "vggsound"):
        assert "http" in sources[name]["list"]["url"]
        assert "http" in sources[name]["videos"]
    assert "acme-data" in result.err
    assert len(result.err.splitlines()) == 1
    text = ccl("data", "ls").out
    assert "acme\n  Films of ACME.\n  package     acme-data 1.0\n" in text
    assert "--data 'folder:my_videos?test=0.25'" in text
    assert "ccl data prepare ucf51 --videos DIR" in text


def test_listing_imports_no_torch():
    code = (
        "import sys; from ccl_cli.__main__ import main; code = main(['data', 'ls', '-q']); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_prepare_and_use(ccl, videos):
    result = ccl("data", "prepare", "folder", "--videos", str(videos), "--frames", "8")
    assert result.code == 0
    #       videos, with sound, missing, corrupt, silent, no track, short, duplicate, hours
    assert ["train", "12", "8", "0", "0", "2", "2", "0", "0", "0.00"] in table(result.out)
    source = load_data(f"folder:{videos}")
    assert result.out.endswith(f"2 classes, hash {source.hash}\nUse it with --data manifest:set.jsonl\n")
    assert load_data("manifest:set.jsonl").hash == source.hash
    again = ccl("data", "prepare", f"folder:{videos}", "--json", "--output", "other/m.jsonl")
    plain = json.loads(again.out)
    assert plain["manifest"] == "other/m.jsonl"
    assert plain["splits"]["train"]["classes"]["right"]["silent"] == 1
    assert Path("other/m.jsonl").read_bytes() == Path("set.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("prepare folder:set --videos other", 2),
        ("prepare folder --videos set --lists x", 3),
        ("prepare folder --videos absent", 4),
        ("check manifest:absent.jsonl", 4),
    ],
)
def test_wrong_words(ccl, videos, words, code):
    assert ccl("data", *words.split()).code == code


def test_a_missing_list_is_fetched_only_when_the_user_says_so(ccl, clips_folder, monkeypatch):
    for name in ("v_Biking_g08_c01", "v_Biking_g01_c01"):
        touch(Path(f"videos/Biking/{name}.mp4"))
        shutil.copy(clips_folder / "set/train/right/3.mp4", f"videos/Biking/{name}.mp4")
    go_online(monkeypatch)
    with zipfile.ZipFile("lists.zip", "w") as file:
        file.writestr("ucfTrainTestlist/trainlist01.txt", "Biking/v_Biking_g08_c01.avi 1\n")
        file.writestr("ucfTrainTestlist/testlist01.txt", "Biking/v_Biking_g01_c01.avi\n")
    with serving(Server(pages={"/lists.zip": Path("lists.zip").read_bytes()})) as server:
        where = replace(ucf._PUBLISHED.list_file, url=f"{server.address}/lists.zip")
        monkeypatch.setattr(ucf, "_PUBLISHED", replace(ucf._PUBLISHED, list_file=where))
        result = ccl("data", "prepare", "ucf101", "--videos", "videos")
        assert (result.code, server.asked) == (4, [])
        assert "lacks its split lists" in result.err
        assert "--yes" in result.err
        assert ccl("data", "prepare", "ucf101", "--videos", "videos", "--yes").code == 0
    assert len(list(Path("videos/ucfTrainTestlist").iterdir())) == 2
    assert [video.split for video in load_data("manifest:ucf101.jsonl").videos] == ["train", "test"]
    assert ccl("data", "prepare", "ucf101?split=2", "--videos", "videos").code == 4


def test_check_tells_notes_from_what_breaks_training(ccl, videos):
    result = ccl("data", "check", f"folder:{videos}", "--frames", "16", "--output", "r.json", "--show", "1")
    assert result.code == 0
    assert "silent     and 1 more" in result.out
    assert "48x48 (18)" in result.out
    problems = json.loads(Path("r.json").read_text())["problems"]
    assert {each["problem"] for each in problems} == {"silent", "no track"}
    result = ccl("data", "check", f"folder:{videos}", "--frames", "21", "--per-class")
    assert result.out.count("frames, a clip has 21") == 5
    assert ["right", "train", "6", "4", "0", "0", "1", "1", "6", "0"] in table(result.out)
    (videos / "train/right/4.mp4").write_bytes(b"x" * 999)
    result = ccl("data", "check", f"folder:{videos}", "--json")
    assert result.code == 4
    assert "1 of 18 videos are missing or corrupt" in result.err
    assert json.loads(result.out)["splits"]["train"]["counts"]["corrupt"] == 1


def test_the_clip_is_the_recipes(ccl, videos, monkeypatch):
    Path("long.yaml").write_text("clip: {frames: 21}\n")
    monkeypatch.setenv("CCL_RECIPE", "long.yaml")
    plain = json.loads(ccl("data", "check", f"folder:{videos}", "--json").out)
    assert plain["splits"]["test"]["counts"]["short"] == 6
