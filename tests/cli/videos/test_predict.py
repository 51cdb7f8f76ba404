"""`ccl predict` and `ccl embed`, on real files."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ccl_cli.deploy import predict
from tests.cli.conftest import table
from tests.helpers.models import write_run


def records(text):
    return json.loads(text)


def test_parts_are_the_whole(ccl, run, videos):
    whole = records(ccl("predict", "videos", "--json").out)
    parts = [records(ccl("predict", "videos", "--json", "--part", f"{n}/4").out) for n in (1, 2, 3, 4)]
    names = [[each["video"] for each in part] for part in parts]
    assert names == [[each["video"] for each in whole[n::4]] for n in range(4)]
    assert ccl("embed", "videos", "--output", "o.npz", "--part", "7/7").code == 0  # six videos: it is empty
    assert np.load("o.npz")["embedding"].shape[0] == 0
    assert ccl("predict", "videos", "--part", "5/4").code == 2


def test_a_file_of_one_and_of_several(ccl, run, videos):
    one = ccl("predict", "videos/down/0.mp4").out.splitlines()
    assert one[0].split() == ["video", "class", "%"]
    rows = [line.split() for line in one[1:]]
    assert [row[0] for row in rows] == ["videos/down/0.mp4"] * 2
    assert {row[1] for row in rows} == {"down", "right"}
    assert sum(float(row[2]) for row in rows) == pytest.approx(100, abs=0.02)
    assert float(rows[0][2]) >= float(rows[1][2])
    several = table(ccl("predict", "videos/down", "videos/right/0.mp4").out)
    assert [row[0] for row in several[1:]] == [
        *(f"videos/down/{n}.mp4" for n in range(3)),
        "videos/right/0.mp4",
    ]
    assert len(ccl("predict", "videos", "--top", "2").out.splitlines()) == 13


def test_json_csv_and_files_say_the_same(ccl, run, videos):
    lines = ccl("predict", "videos", "--json").out
    for name, form in (("o.json", "json"), ("o.jsonl", "jsonl"), ("sub/o.csv", "csv")):
        assert ccl("predict", "videos", "--output", name).out == f"{name}\n"
        assert Path(name).read_text() == ccl("predict", "videos", "--format", form).out
    assert Path("o.json").read_text() == lines
    assert [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()] == records(lines)
    rows = list(csv.DictReader(Path("sub/o.csv").read_text().splitlines()))
    flat = [
        (each["video"], str(each["windows"]), str(rank), row["class"], str(row["probability"]))
        for each in records(lines)
        for rank, row in enumerate(each["classes"], 1)
    ]
    assert [tuple(row.values())[:5] for row in rows] == flat
    assert [each["windows"] for each in records(lines)] == [5] * 6


def test_what_cannot_be_read_is_named_and_the_others_are_done(ccl, run, videos):
    (videos / "cut.mp4").write_bytes((videos / "down/0.mp4").read_bytes()[:100])
    result = ccl("predict", "videos", "gone.mp4", "--json")
    assert result.code == 4
    predictions = records(result.out)
    assert [each["video"] for each in predictions if "error" in each] == ["videos/cut.mp4", "gone.mp4"]
    assert len(predictions) == 8
    assert "videos/cut.mp4: it is not a complete media file" in result.err
    assert "gone.mp4: it cannot be read: No such file or directory" in result.err
    assert "Error: 2 of 8 files could not be read; the others are done." in result.err.splitlines()
    alone = ccl("predict", "gone.mp4")
    assert alone.code == 4
    assert alone.err.splitlines() == [
        "Error: gone.mp4: it cannot be read: No such file or directory.",
        "  Check the path, and that the file is a complete video.",
    ]
    ccl("predict", "videos", "--output", "o.csv")
    (row,) = [row for row in csv.DictReader(Path("o.csv").read_text().splitlines()) if row["error"]]
    assert row["video"] == "videos/cut.mp4"


def test_names_that_are_not_harmless(ccl, run, videos):
    for name in ("=cmd.mp4", "a\x1b[31m\n.mp4", "<b>.mp4", os.fsdecode(b"\xff.mp4")):
        shutil.copy(videos / "down/0.mp4", name)
    files = ["=cmd.mp4", "a\x1b[31m\n.mp4", "<b>.mp4", os.fsdecode(b"\xff.mp4"), "\x1b.mp4"]
    result = ccl("predict", *files)
    assert result.code == 4
    assert "\x1b" not in result.out + result.err
    assert [line.split()[0] for line in result.out.splitlines()[1:]] == [
        "=cmd.mp4",
        "a\\x1b[31m\\n.mp4",
        "<b>.mp4",
        "\\udcff.mp4",
    ]
    assert "\\x1b.mp4: it cannot be read" in result.err
    lines = ccl("predict", *files, "--format", "csv", "--top", "1").out.splitlines()
    assert [line.split(",")[0] for line in lines[1:5]] == [
        "'=cmd.mp4",
        "a\\x1b[31m\\n.mp4",
        "<b>.mp4",
        "\\udcff.mp4",
    ]
    assert [each["video"] for each in records(ccl("predict", *files, "--json").out)] == files


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "Missing argument"),
        (["empty"], 4, "The folder 'empty' holds no videos."),
        (["videos", "--output", "o.txt"], 2, "is not supported"),
        (["videos", "--output", "o.csv", "--json"], 2, "exclude each other"),
        (["videos", "--top", "0"], 2, "'--top'"),
        (["runs/mine/a"], 2, "No videos are named."),
        (["no.safetensors", "videos"], 4, "'no.safetensors' is not a run folder"),
        (["empty.safetensors", "videos"], 6, "Name a run's folder, or its model.safetensors."),
    ],
)
def test_errors_are_sentences(ccl, run, videos, arguments, code, sentence):
    Path("empty").mkdir()
    Path("empty.safetensors").touch()
    result = ccl("predict", *arguments)
    assert (result.code, result.out) == (code, "")
    assert sentence in result.err
    assert "Traceback" not in result.err


def test_without_a_model(ccl, videos):
    result = ccl("predict", "videos")
    assert result.code == 4
    assert "Train one with `ccl train`, or name a run's folder elsewhere." in result.err


def test_the_model_may_be_a_run_or_its_file(ccl, run, videos, clips_folder, tmp_path):
    write_run(tmp_path / "runs" / "mine" / "b", clips_folder / "set", seed=1)
    newest, run_, file = (
        ccl("predict", *named, "videos", "--json").out
        for named in ([], [str(run)], [str(run / "model.safetensors")])
    )
    assert run_ == file != newest


@pytest.mark.parametrize(
    ("command", "output"), [("predict", "o.csv"), ("predict", "o.jsonl"), ("embed", "o.npz")]
)
def test_stopped_it_keeps_what_was_finished(ccl, run, videos, monkeypatch, command, output):
    real = predict.predict_videos

    def interrupted(*arguments, **settings):
        for number, prediction in enumerate(real(*arguments, **settings)):
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield prediction

    monkeypatch.setattr(predict, "predict_videos", interrupted)
    result = ccl(command, "videos", "--output", output)
    partial = Path(output).with_suffix(f".partial{Path(output).suffix}")
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines() == ["Error: Stopped by SIGINT.", f"  Finished results are in '{partial}'."]
    assert not Path(output).exists()
    if command == "predict":
        assert sum(f"{n}.mp4" in partial.read_text() for n in range(3)) == 3
        assert "right" not in partial.read_text().replace('"class": "right"', "").replace(",right,", "")
    else:
        assert len(np.load(partial)["names"]) == 3
    if command == "predict":
        result = ccl(command, "videos", "--json")
        assert (result.code, len(records(result.out))) == (130, 3)


@pytest.mark.slow  # two processes that import torch
def test_rows_come_one_by_one_and_a_closed_pipe_is_quiet(run, videos):
    """With an endless pipe at the end of the list the rows before it are there already."""
    for copy in range(30):
        shutil.copytree(videos / "down", videos / f"more{copy}")
    command = f"{sys.executable} -m ccl_cli predict videos --format jsonl --batch-size 1 | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=100)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")
    words = ["predict", "videos", "--format", "jsonl", "--batch-size", "1", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ccl_cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.startswith("Error: Stopped by SIGINT")
    assert 1 <= len([json.loads(line) for line in (first + rest).splitlines()]) < 96


# ---- embed


def test_embed(ccl, run, videos):
    result = ccl("embed", str(run), "videos", "--output", "f.npz")
    assert (result.code, result.out) == (0, "f.npz\n")
    with np.load("f.npz") as file:
        assert file["names"].tolist() == [f"{name}/{n}" for name in ("down", "right") for n in range(3)]
        assert file["paths"].tolist()[0] == "videos/down/0.mp4"
        assert file["embedding"].shape == (6, json.loads(str(file["about"]))["dim"])
        norms = np.linalg.norm(file["embedding"], axis=1)
    assert not np.allclose(norms, 1)
    from ccl_cli.evaluation.prediction_cache import cached_predictions

    features = cached_predictions(run, "test").features
    np.testing.assert_array_equal(
        np.load("f.npz")["embedding"], features
    )  # what retrieval evaluation compares


def test_embed_of_what_cannot_be_read_and_of_nothing_to_write_to(ccl, run, videos):
    (videos / "bad.mp4").touch()
    result = ccl("embed", "videos", "--output", "f.safetensors")
    assert (result.code, result.out) == (4, "f.safetensors\n")
    assert "videos/bad.mp4: it is empty (0 bytes)" in result.err
    assert json.loads(ccl("embed", "videos/down", "--output", "f.npz", "--json").out) == {"path": "f.npz"}
    assert ccl("embed", "videos", "--output", "f.txt").code == 2
    assert ccl("embed", "videos").code == 2
