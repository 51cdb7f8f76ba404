from __future__ import annotations

import json

import pytest

from ccl_cli.executors.part import WHOLE


@pytest.fixture
def packed(monkeypatch):
    """What `ccl data pack` hands on, and a report."""
    calls = []
    report = {
        "folder": "out put",
        "splits": {
            "train": {
                "videos": 12,
                "packed": 11,
                "shards": 2,
                "bytes": 4_000_000,
                "seconds": 40.0,
                "sound": {"present": 6, "silent": 3, "no track": 2},
            }
        },
        "unreadable": {"a/3": "'/x/a/3.mp4' is empty (0 bytes)."},
    }

    def pack(*args, **rest):
        calls.append((*args, rest))
        return report

    monkeypatch.setattr("ccl_cli.data.shards.write.pack", pack)
    return calls


def test_it_prints_what_became_of_each_split_and_how_to_train_with_it(ccl, packed):
    result = ccl("data", "pack", "folder:x", "--output", "out put")
    assert result.code == 0
    head, row, left, _, last = result.out.splitlines()
    assert head.split() == [
        "split",
        "videos",
        "packed",
        "shards",
        "MB",
        "minutes",
        "kB/s",
        "sound",
        "silent",
        "no",
        "track",
    ]
    assert row.split() == ["train", "12", "11", "2", "4.0", "0.7", "100", "6", "3", "2"]
    assert left == "skipped: a/3: '/x/a/3.mp4' is empty (0 bytes)."
    assert last == "Train with it: ccl train --data 'shards:out put'"
    assert json.loads(ccl("data", "pack", "folder:x", "--output", "o", "--json").out)["folder"] == "out put"


def test_every_flag_reaches_its_place(ccl, packed):
    flags = (
        "--short-side 240 --fps 12.5 --format mp4 --quality 30 --audio-rate 16000 --max-unreadable 0.2 "
        "--shard-size 64 --workers 3 --executor slurm"
    )
    assert ccl("data", "pack", "ucf51", "--output", "o", *flags.split()).code == 0
    ((data, output, settings, rest),) = packed
    assert (data, str(output)) == ("ucf51", "o")
    assert vars(settings) == {"short_side": 240, "fps": 12.5, "format": "mp4", "quality": 30, "rate": 16000}
    assert rest.pop("executor").name == "slurm"
    assert rest == {"workers": 3, "shard_size": 64_000_000, "max_unreadable": 0.2, "part": WHOLE}


def test_defaults(ccl, packed):
    ccl("data", "pack", "ucf51", "--output", "o", "--no-audio")
    ccl("data", "pack", "ucf51", "--output", "o", "--format", "mp4")
    (_, _, jpeg, rest), (_, _, mp4, _) = packed
    assert vars(jpeg) == {"short_side": 128, "fps": None, "format": "jpeg", "quality": 85, "rate": None}
    assert (mp4.quality, mp4.rate) == (20, 32000)
    assert (rest["max_unreadable"], rest["shard_size"]) == (0.05, 256_000_000)
    assert rest["workers"] is rest["executor"] is None


@pytest.mark.parametrize(("form", "quality"), [("jpeg", "0"), ("jpeg", "96"), ("mp4", "-1"), ("mp4", "52")])
def test_a_quality_that_the_format_does_not_have(ccl, packed, form, quality):
    result = ccl("data", "pack", "x", "--output", "o", "--format", form, "--quality", quality)
    assert result.code == 2
    assert f"for --format {form}, not {quality}" in result.err
    assert packed == []


def test_a_set_that_is_not_there_and_a_folder_that_cannot_be_written(ccl, tmp_path, clips_folder):
    result = ccl("data", "pack", "folder:nowhere", "--output", "o", "--workers", "0")
    assert (result.code, result.out) == (4, "")
    assert "There is no folder 'nowhere'." in result.err
    (tmp_path / "file").write_text("")
    result = ccl("data", "pack", f"folder:{clips_folder / 'set'}", "--output", "file/o", "--workers", "0")
    assert (result.code, result.out) == (6, "")
    assert result.err.count("\n") == 2
    assert "Not a directory: 'file/o'" in result.err
