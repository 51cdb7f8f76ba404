from __future__ import annotations

import json

import pytest

from ccl_cli.executors.part import WHOLE
from tests.cli.conftest import table

SPLIT = {"videos": 12, "packed": 11, "shards": 2, "bytes": 4_000_000, "seconds": 40.0}
SPLIT |= {"sound": {"present": 6, "silent": 3, "no track": 2}}


@pytest.fixture
def packed(monkeypatch):
    """What `ccl data pack` hands on."""
    calls = []
    report = {
        "folder": "out put",
        "splits": {"train": SPLIT},
        "unreadable": {"a/3": "'/x/a/3.mp4' is empty."},
    }

    def pack(*args, **rest):
        calls.append((*args, rest))
        return report

    monkeypatch.setattr("ccl_cli.data.shards.write.pack", pack)
    return calls


def test_it_prints_what_became_of_each_split_and_how_to_train_with_it(ccl, packed):
    result = ccl("data", "pack", "folder:x", "--output", "out put")
    assert table(result.out)[:3] == [
        ["split", "videos", "packed", "shards", "MB", "minutes", "kB/s", "sound", "silent", "no", "track"],
        ["train", "12", "11", "2", "4.0", "0.7", "100", "6", "3", "2"],
        ["skipped:", "a/3:", "'/x/a/3.mp4'", "is", "empty."],
    ]
    assert result.out.endswith("ccl train --data 'shards:out put'\n")
    assert json.loads(ccl("data", "pack", "folder:x", "--output", "o", "--json").out)["folder"] == "out put"


def test_flags_and_defaults_reach_their_place(ccl, packed):
    flags = (
        "--short-side 240 --fps 12.5 --format mp4 --quality 30 --audio-rate 16000 --max-unreadable 0.2 "
        "--shard-size 64 --workers 3 --executor slurm"
    )
    for words in (flags, "--no-audio", "--format mp4"):
        assert ccl("data", "pack", "ucf51", "--output", "o", *words.split()).code == 0
    (data, output, settings, rest), (_, _, jpeg, usual), (_, _, mp4, _) = packed
    assert (data, str(output)) == ("ucf51", "o")
    assert vars(settings) == {"short_side": 240, "fps": 12.5, "format": "mp4", "quality": 30, "rate": 16000}
    assert rest.pop("executor").name == "slurm"
    assert rest == {"workers": 3, "shard_size": 64_000_000, "max_unreadable": 0.2, "part": WHOLE}
    assert vars(jpeg) == {"short_side": 128, "fps": None, "format": "jpeg", "quality": 85, "rate": None}
    assert (mp4.quality, mp4.rate) == (20, 32000)
    assert (usual["max_unreadable"], usual["shard_size"]) == (0.05, 256_000_000)
    assert usual["workers"] is usual["executor"] is None


@pytest.mark.parametrize(("form", "quality"), [("jpeg", "0"), ("jpeg", "96"), ("mp4", "-1"), ("mp4", "52")])
def test_a_quality_that_the_format_does_not_have(ccl, packed, form, quality):
    result = ccl("data", "pack", "x", "--output", "o", "--format", form, "--quality", quality)
    assert result.code == 2
    assert f"for --format {form}, not {quality}" in result.err
    assert packed == []


def test_a_set_that_is_not_there_and_a_folder_that_cannot_be_written(ccl, tmp_path, clips_folder):
    (tmp_path / "file").touch()
    for data, output, code, error in (
        ("folder:nowhere", "o", 4, "There is no folder 'nowhere'."),
        (f"folder:{clips_folder / 'set'}", "file/o", 6, "Not a directory: 'file/o'"),
    ):
        result = ccl("data", "pack", data, "--output", output, "--workers", "0")
        assert (result.code, result.out) == (code, "")
        assert error in result.err
