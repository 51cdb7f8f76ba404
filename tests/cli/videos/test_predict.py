"""`ccl predict` and `ccl embed`, on real files."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from ccl_cli.deploy import predict
from ccl_cli.evaluation.prediction_cache import cached_predictions
from tests.cli.conftest import table
from tests.helpers.models import write_run


def test_parts_are_the_whole(ccl, run, videos):
    whole = json.loads(ccl("predict", "videos", "--json").out)
    for n in range(4):
        assert json.loads(ccl("predict", "videos", "--json", "--part", f"{n + 1}/4").out) == whole[n::4]
    assert ccl("embed", "videos", "--output", "o.npz", "--part", "7/7").code == 0  # six videos: it is empty
    assert np.load("o.npz")["embedding"].shape[0] == 0
    assert ccl("predict", "videos", "--part", "5/4").code == 2


def test_the_table_of_one_file_and_of_several(ccl, run, videos):
    header, *rows = table(ccl("predict", "videos/down/0.mp4").out)
    assert header == ["video", "class", "%"]
    assert [row[0] for row in rows] == ["videos/down/0.mp4"] * 2
    assert {row[1] for row in rows} == {"down", "right"}
    assert sum(float(row[2]) for row in rows) == pytest.approx(100, abs=0.02)
    assert float(rows[0][2]) >= float(rows[1][2])
    _, *several = table(ccl("predict", "videos/down", "videos/right/0.mp4").out)
    names = [*(f"videos/down/{n}.mp4" for n in range(3)), "videos/right/0.mp4"]
    assert [row[0] for row in several] == names
    assert len(table(ccl("predict", "videos", "--top", "2").out)) == 13


def test_json_csv_and_files_say_the_same(ccl, run, videos):
    lines = ccl("predict", "videos", "--json").out
    records = json.loads(lines)
    for name, form in (("o.json", "json"), ("o.jsonl", "jsonl"), ("sub/o.csv", "csv")):
        assert ccl("predict", "videos", "--output", name).out == f"{name}\n"
        assert Path(name).read_text() == ccl("predict", "videos", "--format", form).out
    assert Path("o.json").read_text() == lines
    assert [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()] == records
    assert [each["windows"] for each in records] == [5] * 6
    flat = [
        [each["video"], "5", str(rank), row["class"], str(row["probability"]), ""]
        for each in records
        for rank, row in enumerate(each["classes"], 1)
    ]
    header = ["video", "windows", "rank", "class", "probability", "error"]
    assert list(csv.reader(Path("sub/o.csv").read_text().splitlines())) == [header, *flat]


def test_what_cannot_be_read_is_named_and_the_others_are_done(ccl, run, videos):
    (videos / "cut.mp4").write_bytes((videos / "down/0.mp4").read_bytes()[:100])
    result = ccl("predict", "videos", "gone.mp4", "--json")
    predictions = json.loads(result.out)
    assert (result.code, len(predictions)) == (4, 8)
    assert [each["video"] for each in predictions if "error" in each] == ["videos/cut.mp4", "gone.mp4"]
    assert "videos/cut.mp4: it is not a complete media file" in result.err
    assert "gone.mp4: it cannot be read: No such file or directory" in result.err
    assert "2 of 8 files could not be read" in result.err
    alone = ccl("predict", "gone.mp4")
    assert (alone.code, len(alone.err.splitlines())) == (4, 2)
    ccl("predict", "videos", "--output", "o.csv")
    (row,) = [row for row in csv.DictReader(Path("o.csv").read_text().splitlines()) if row["error"]]
    assert row["video"] == "videos/cut.mp4"


def test_names_that_are_not_harmless(ccl, run, videos):
    files = ["=cmd.mp4", "a\x1b[31m\n.mp4", "<b>.mp4", os.fsdecode(b"\xff.mp4"), "\x1b.mp4"]
    shown = ["=cmd.mp4", "a\\x1b[31m\\n.mp4", "<b>.mp4", "\\udcff.mp4"]
    for name in files[:-1]:
        shutil.copy(videos / "down/0.mp4", name)
    result = ccl("predict", *files)
    assert result.code == 4
    assert "\x1b" not in result.out + result.err
    assert [row[0] for row in table(result.out)[1:]] == shown
    assert "\\x1b.mp4: it cannot be read" in result.err
    lines = ccl("predict", *files, "--format", "csv", "--top", "1").out.splitlines()
    assert [line.split(",")[0] for line in lines[1:5]] == ["'=cmd.mp4", *shown[1:]]
    assert [each["video"] for each in json.loads(ccl("predict", *files, "--json").out)] == files


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["predict"], 2, "Missing argument"),
        (["predict", "empty"], 4, "The folder 'empty' holds no videos."),
        (["predict", "videos", "--output", "o.txt"], 2, "is not supported"),
        (["predict", "videos", "--output", "o.csv", "--json"], 2, "exclude each other"),
        (["predict", "runs/mine/a"], 2, "No videos are named."),
        (["predict", "no.safetensors", "videos"], 4, "'no.safetensors' is not a run folder"),
        (["predict", "empty.safetensors", "videos"], 6, "Name a run's folder, or its model.safetensors."),
        (["embed", "videos", "--output", "f.txt"], 2, "is not supported"),
        (["embed", "videos"], 2, "Missing option"),
    ],
)
def test_errors_are_sentences(ccl, run, videos, arguments, code, sentence):
    Path("empty").mkdir()
    Path("empty.safetensors").touch()
    result = ccl(*arguments)
    assert (result.code, result.out) == (code, "")
    assert sentence in result.err
    assert "Traceback" not in result.err


def test_the_model_may_be_a_run_or_its_file(ccl, run, videos, clips_folder, tmp_path):
    write_run(tmp_path / "runs" / "mine" / "b", clips_folder / "set", seed=1)
    names = [[], [str(run)], [str(run / "model.safetensors")]]
    newest, by_run, by_file = (ccl("predict", *named, "videos", "--json").out for named in names)
    assert by_run == by_file != newest
    shutil.rmtree("runs")
    result = ccl("predict", "videos")
    assert result.code == 4
    assert "Train one with `ccl train`" in result.err


@pytest.mark.parametrize("output", ["o.csv", "o.jsonl", "o.npz", "o.parquet"])
def test_stopped_it_keeps_what_was_finished(ccl, run, videos, monkeypatch, output):
    real = predict.predict_videos

    def interrupted(*arguments, **settings):
        for number, prediction in enumerate(real(*arguments, **settings)):
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield prediction

    monkeypatch.setattr(predict, "predict_videos", interrupted)
    command = "predict" if output in ("o.csv", "o.jsonl") else "embed"
    result = ccl(command, "videos", "--output", output)
    partial = Path(output).with_suffix(f".partial{Path(output).suffix}")
    assert (result.code, result.out) == (130, "")
    assert f"Finished results are in '{partial}'." in result.err
    assert not Path(output).exists()
    if command == "predict":
        names = set(re.findall(r"videos/\w+/\d.mp4", partial.read_text()))
        assert names == {f"videos/down/{n}.mp4" for n in range(3)}
        result = ccl(command, "videos", "--json")
        assert (result.code, len(json.loads(result.out))) == (130, 3)
    else:
        rows = parquet.read_table(partial) if output == "o.parquet" else np.load(partial)["names"]
        assert len(rows) == 3


@pytest.mark.slow  # two processes that import torch
def test_rows_come_one_by_one_and_a_closed_pipe_is_quiet(run, videos):
    """With an endless pipe at the end of the list the rows before it are there already."""
    for copy in range(30):
        shutil.copytree(videos / "down", videos / f"more{copy}")
    words = [sys.executable, "-m", "ccl_cli", "predict", "videos", "--format", "jsonl", "--batch-size", "1"]
    command = f"{' '.join(words)} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=100)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*words, "--workers", "1"], **pipes)
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.startswith("Error: Stopped by SIGINT")
    assert 1 <= len([json.loads(line) for line in (first + rest).splitlines()]) < 96


def test_embed_writes_what_retrieval_compares(ccl, run, videos):
    result = ccl("embed", str(run), "videos", "--output", "f.npz")
    assert (result.code, result.out) == (0, "f.npz\n")
    with np.load("f.npz") as file:
        assert file["names"].tolist() == [f"{name}/{n}" for name in ("down", "right") for n in range(3)]
        assert file["paths"].tolist()[0] == "videos/down/0.mp4"
        features = cached_predictions(run, "test").features
        np.testing.assert_array_equal(file["embedding"], features)
    assert not np.allclose(np.linalg.norm(features, axis=1), 1)
    (videos / "bad.mp4").touch()
    result = ccl("embed", "videos", "--output", "f.safetensors")
    assert (result.code, result.out) == (4, "f.safetensors\n")
    assert "videos/bad.mp4: it is empty (0 bytes)" in result.err
    assert json.loads(ccl("embed", "videos/down", "--output", "f.npz", "--json").out) == {"path": "f.npz"}
