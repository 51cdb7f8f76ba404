from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from ccl_cli.cli.model.export import _print_int8
from ccl_cli.config.recipe import Recipe
from ccl_cli.training.build import make_student
from ccl_cli.training.run.artefact import save_model
from ccl_cli.training.run.folder import MODEL
from tests.cli.conftest import spawn

CLIP = {"frames": 2, "size": 16, "short_side": 16}


@pytest.fixture
def words(clips_folder, tmp_path):
    """The command that exports an untrained model into the folder ``out``."""
    path = tmp_path / "my models" / MODEL
    torch.manual_seed(0)
    recipe = Recipe(student="r2plus1d_tiny", clip=CLIP)
    path.parent.mkdir()
    save_model(path, make_student(recipe.student, 3), recipe, ("a", "b", "c"))
    return ["model", "export", str(path), "--output", "out", "--clips", str(clips_folder / "set" / "test")]


def test_a_model_becomes_a_folder_of_files(ccl, words, tmp_path, monkeypatch):
    result = ccl(*words, "--format", "torch", "--output", "deep/out")
    assert result.code == 0, result.err
    assert sorted(os.listdir(tmp_path / "deep" / "out")) == ["export.json", "model.pt2"]
    first, *_, last = result.out.splitlines()
    assert first.split() == ["MB", "ms", "per", "clip", "logits", "differ", "by", "feature", "differs", "by"]
    assert "in batches of 1 and 3\nof the given files." in result.out
    assert last == "deep/out"
    record = json.loads((tmp_path / "deep" / "out" / "export.json").read_text())
    monkeypatch.setattr("ccl_cli.deploy.export.export_model", lambda *given, **options: record)
    assert json.loads(ccl(*words, "--json").out) == record


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--format", "torch", "--int8"], 2, "--format onnx or --format both"),
        (["--tolerance", "-1"], 2, "--tolerance"),
        (["--output", "full"], 2, "'full' is not empty."),
        (["--output", "full/mine.txt"], 2, "'full/mine.txt' is a file."),
        (["--output", "full/mine.txt/out"], 6, "full/mine.txt"),
        (["--clips", "no such clip"], 4, "There is no file 'no such clip'."),
    ],
)
def test_errors_are_sentences_and_leave_nothing(ccl, words, tmp_path, arguments, code, sentence):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = ccl(*words, *arguments)
    assert (result.code, result.out) == (code, "")
    assert sentence in result.err
    assert "Internal" not in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_run_or_the_packages(ccl, words, monkeypatch):
    for run, sentence in (([], "ccl train"), (["absent"], "'absent' is not a run folder.")):
        result = ccl("model", "export", *run, "--output", "out")
        assert result.code == 4
        assert sentence in result.err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = ccl(*words)
    assert result.code == 6
    assert "pip install 'ccl-cli[export]'" in result.err


@pytest.mark.parametrize(
    ("accuracy", "parts"),
    [
        (None, ["accuracy", "unknown"]),
        (
            {"top1": {"f": 50.0, "i": 49.5}, "agree": 98.0, "videos": 1000, "of": 1944},
            ["49.5 %, float32 50.0 %", "98.0 %", "1,000 of 1,944"],
        ),
    ],
)
def test_int8_is_reported_as_it_is(capsys, accuracy, parts):
    _print_int8({"accuracy": accuracy, "calibration_clips": 32}, speedup=0.5)
    out = capsys.readouterr().out
    assert [part for part in [*parts, "32", "0.5 x float32"] if part not in out] == []


@pytest.mark.slow
def test_in_a_process_of_its_own_it_is_quiet_where_others_are_loud(words):
    done = spawn(*words, "--int8", "-q", PYTHONWARNINGS="")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"model.int8.onnx", "model.onnx", "model.pt2", "export.json"} == set(os.listdir("out"))


@pytest.mark.slow
def test_stopped_it_leaves_nothing(words, tmp_path):
    command = [sys.executable, "-m", "ccl_cli", *words, "--output", "new/out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "Tracing" in line:
            process.send_signal(signal.SIGTERM)
            break
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "nothing was written" in error
    assert "Traceback" not in error
    assert list((tmp_path / "new").iterdir()) == []
