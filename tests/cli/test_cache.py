from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

TEACHERS = ["--teacher", "audio:small?weights=random", "--teacher", "image:small?weights=random"]


@pytest.fixture
def words(clips_folder):
    return ["--data", f"folder:{clips_folder / 'set'}", *TEACHERS, "--views", "2"]


def test_build_list_verify_and_prune(ccl, words, tmp_path):
    made = ccl("cache", "build", *words, "--workers", "0")
    assert made.code == 0, made.err
    folders = made.out.split()
    assert [folder.rpartition("/")[2].rpartition("-")[0] for folder in folders] == [
        "audio-small",
        "image-small",
    ]
    again = ccl("cache", "build", *words)
    assert again.out.split() == folders  # what is there is kept
    (warning,) = (line for line in again.err.splitlines() if "cache.use=build" in line)
    assert folders[1].rpartition("/")[2] in warning
    rows = json.loads(ccl("cache", "ls", "--json").out)
    assert [(row["views"], row["videos"], row["states"]["present"]) for row in rows] == [
        ("track", 12, 8),
        ("2 frames at 256 px", 12, 12),
    ]
    assert [row["inexact"] for row in rows] == [0, 12]
    header, first, _ = ccl("cache", "ls").out.splitlines()
    assert header.split()[:4] == ["cache", "data", "views", "videos"]
    assert first.split()[:4] == [folders[0].rpartition("/")[2], "set", "track", "12"]
    assert ccl("cache", "verify").out.splitlines() == [f"{row['name']}: ok" for row in rows]
    assert ccl("cache", "verify", *words).out == ccl("cache", "verify").out
    path = tmp_path / "cache" / "embeddings" / rows[1]["name"] / "embedding.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x77")
    result = ccl("cache", "verify")
    assert result.code == 4
    assert f"{rows[1]['name']}: its bytes are not those that were written" in result.out
    assert "ccl cache prune NAME" in result.err
    refused = ccl("cache", "prune", "--all")
    assert (refused.code, "Nothing was deleted" in refused.err) == (2, True)
    gone = ccl("cache", "prune", rows[1]["name"], "--yes")
    assert (gone.code, gone.out.splitlines()[0]) == (0, rows[1]["name"])
    assert [row["name"] for row in json.loads(ccl("cache", "ls", "--json").out)] == [rows[0]["name"]]


def test_stale_ones_alone_are_pruned(ccl, words, clips_folder, tmp_path):
    shutil.copytree(clips_folder / "set", tmp_path / "set")
    words[1] = f"folder:{tmp_path / 'set'}"
    before = ccl("cache", "build", *words, "--workers", "0").out.split()
    with (tmp_path / "set" / "train" / "down" / "4.mp4").open("ab") as file:
        file.write(b"more")
    after = ccl("cache", "build", *words, "--workers", "0").out.split()
    assert not set(before) & set(after)
    gone = ccl("cache", "prune", "--stale", "--yes", *words)
    assert gone.out.splitlines()[:2] == sorted(folder.rpartition("/")[2] for folder in before)
    assert sorted(row["path"] for row in json.loads(ccl("cache", "ls", "--json").out)) == sorted(after)
    assert ccl("cache", "prune", "--stale", "--yes", *words).out == "Nothing to delete.\n"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("build --data folder:nowhere", 2, "No teacher was named"),
        ("build --teacher image:small?weights=random", 3, "No data set is named"),
        ("prune", 2, "Select the caches to delete"),
        ("prune --all --stale", 2, "in one way"),
        ("prune image-small-0 --yes", 2, "image-small-0"),
        ("build --views 0", 2, "--views"),
        ("build --teacher image:small --part 1/2 --executor slurm", 2, "--part and --executor exclude"),
        ("build --teacher image:small --part 1/2 --num-processes 2", 2, "--part and --num-processes exclude"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(ccl, words, code, sentence):
    result = ccl("cache", *words.split())
    assert (result.code, sentence in result.err) == (code, True), result.err


def test_a_folder_that_cannot_be_written_is_a_sentence(ccl, words, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CCL_HOME", str(tmp_path / "file"))
    result = ccl("cache", "build", *words, "--workers", "0")
    assert (result.code, "CCL_HOME" in result.err) == (6, True)


def test_parts_make_a_cache_together(ccl, words):
    """These clips fit into one part."""
    assert ccl("cache", "build", *words, "--workers", "0", "--part", "2/2").out == ""
    assert len(ccl("cache", "build", *words, "--workers", "0", "--part", "1/2").out.split()) == 2


@pytest.mark.slow
def test_tasks_of_an_array_make_the_cache_of_one_process(ccl, clips_folder, slurm, tmp_path, monkeypatch):
    """Three hundred segments are two parts."""
    monkeypatch.setenv("CCL_EXECUTOR_POLL", "0.2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    video = sorted((clips_folder / "set" / "train").glob("*/*.mp4"))[0]
    rows = [f"{video},a,train,{0.001 * row:.3f},{0.001 * row + 0.3:.3f}" for row in range(300)]
    (tmp_path / "segments.csv").write_text("\n".join(["path,label,split,start,end", *rows, ""]))
    words = [
        "--data",
        f"csv:{tmp_path / 'segments.csv'}",
        "--teacher",
        "audio:small?weights=random&seconds=0.25",
    ]
    checksums = []
    for number, more in enumerate([["--workers", "0"], ["--executor", "slurm", "--workers", "0"]]):
        monkeypatch.setenv("CCL_HOME", str(tmp_path / f"home{number}"))
        result = ccl("cache", "build", *words, *more)
        assert result.code == 0, result.err
        (path,) = result.out.split()
        checksums.append(json.loads((Path(path) / "cache.json").read_text())["sha256"])
    assert checksums[0] == checksums[1]
    assert len(list((slurm / "jobs").iterdir())) == 1
