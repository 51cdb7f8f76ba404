from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from ccl_cli.cli import export as command
from ccl_cli.config.recipe import Recipe
from ccl_cli.training.artefact import save_model
from ccl_cli.training.build import make_student
from ccl_cli.training.runs import MODEL
from ccl_cli.utils.signals import STOPPING, Stopped
from tests.cli.conftest import spawn

CLIP = {"frames": 2, "size": 16, "short_side": 16}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "my models" / MODEL
    torch.manual_seed(0)
    recipe = Recipe(student="r2plus1d_tiny", clip=CLIP)
    path.parent.mkdir()
    save_model(path, make_student(recipe.student, 3), recipe, ("a", "b", "c"))
    return path


def test_a_model_becomes_a_folder_of_files(ccl, model, clips_folder, tmp_path):
    named = ["--clips", str(clips_folder / "set" / "test")]
    result = ccl("export", str(model), "--output", "deep/er", "--format", "torch", *named)
    assert result.code == 0, result.err
    assert sorted(os.listdir(tmp_path / "deep" / "er")) == ["export.json", "model.pt2"]
    first, *_, last = result.out.splitlines()
    assert first.split() == ["MB", "ms", "per", "clip", "logits", "differ", "by", "feature", "differs", "by"]
    assert "in batches of 1 and 3\nof the named files." in result.out
    assert last == "deep/er"


def test_as_json_nothing_else_is_printed(ccl, model, clips_folder, tmp_path):
    named = ["--clips", str(clips_folder / "set" / "test")]
    result = ccl("export", str(model), "--output", "out", "--format", "torch", "--json", *named)
    assert json.loads(result.out) == json.loads((tmp_path / "out" / "export.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["MODEL"], 2, "--output"),
        (["MODEL", "--output", "out", "--format", "torch", "--int8"], 2, "--format onnx or --format both"),
        (["MODEL", "--output", "out", "--tolerance", "-1"], 2, "--tolerance"),
        (["MODEL", "--output", "full", "--clips", "CLIPS"], 2, "'full' is not empty."),
        (["MODEL", "--output", "full/mine.txt", "--clips", "CLIPS"], 2, "'full/mine.txt' is a file."),
        (["MODEL", "--output", "full"], 2, "'full' is not empty."),
        (["MODEL", "--output", "full/mine.txt/out", "--clips", "CLIPS"], 6, "full/mine.txt"),
        (["MODEL", "--output", "out", "--clips", "no such clip"], 4, "There is no file 'no such clip'."),
        (["--output", "out"], 4, "ccl train"),
        (["full", "--output", "out"], 4, "'full' is not a run folder."),
        (["full/mine.txt", "--output", "out"], 6, "'full/mine.txt' is"),
    ],
)
def test_what_a_user_gets_wrong(ccl, model, clips_folder, tmp_path, arguments, code, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    places = {"MODEL": str(model), "CLIPS": str(clips_folder / "set" / "test")}
    before = sorted(tmp_path.rglob("*"))
    result = ccl("export", *(places.get(word, word) for word in arguments))
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert "Traceback" not in result.err
    assert "Internal" not in result.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_packages(ccl, model, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    result = ccl("export", str(model), "--output", "out")
    assert result.code == 6
    assert package in result.err
    assert "pip install 'ccl-cli[export]'" in result.err


@pytest.mark.parametrize(
    ("accuracy", "speed", "said"),
    [
        (None, 2.0, ["not known", "2.0 times as slow"]),
        (
            {"top1": {"f": 50.0, "i": 49.5}, "agree": 98.0, "videos": 1000, "of": 1944},
            0.25,
            ["top-1 49.5 %, float32 50.0 %", "98.0 %", "1,000 of 1,944 test videos", "4.0 times as fast"],
        ),
    ],
)
def test_int8_is_reported_as_it_is(accuracy, speed, said):
    lines = command._about_int8({"accuracy": accuracy, "calibration_clips": 32}, 10.0, 10.0 * speed)
    for words in said:
        assert words in "\n".join(lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.slow
def test_in_a_process_of_its_own_it_is_quiet_where_others_are_loud(model, clips_folder, tmp_path):
    clips = str(clips_folder / "set")
    done = spawn("export", str(model), "--output", "out", "--int8", "--clips", clips, "-q", PYTHONWARNINGS="")
    assert done.returncode == 0
    assert done.stderr == ""
    assert {"model.int8.onnx", "model.onnx", "model.pt2", "export.json"} == set(os.listdir("out"))


@pytest.mark.slow
@pytest.mark.parametrize("number", STOPPING)
def test_stopped_it_leaves_nothing(model, clips_folder, tmp_path, number):
    clips = str(clips_folder / "set")
    words = ["export", str(model), "--output", "new/out", "--clips", clips]
    process = subprocess.Popen([sys.executable, "-m", "ccl_cli", *words], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "Tracing" in line:
            process.send_signal(number)
            break
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert list((tmp_path / "new").iterdir()) == []


def test_stopped_it_says_that_nothing_is_there(ccl, model, clips_folder, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr("ccl_cli.deploy.export.export_model", stop)
    result = ccl("export", str(model), "--output", "out", "--clips", str(clips_folder / "set" / "test"))
    assert (result.code, result.out) == (130, "")
    assert "nothing was written" in result.err
    assert not (tmp_path / "out").exists()
