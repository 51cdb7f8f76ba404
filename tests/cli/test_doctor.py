from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from plugin_folder import install, install_broken

from ccl_cli import doctor
from ccl_cli.__main__ import main


def run(tmp_path, **extra):
    """The command in a process of its own: what it imports must not be there already."""
    environment = os.environ | {"CCL_HOME": str(tmp_path / "cache"), "COLUMNS": "200"} | extra
    command = [sys.executable, "-m", "ccl_cli", "doctor", "--json"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done, {each["part"]: each for each in json.loads(done.stdout)}


def test_a_sound_installation(tmp_path):
    done, found = run(tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    assert {each["state"] for each in found.values()} <= {"ok", "warning"}
    assert found["torch"]["found"].startswith("2.11")
    assert found["codec h264"]["found"] == "decoded 4 frames"
    assert str(tmp_path / "cache") in found["cache"]["found"]
    assert found["cache"]["state"] == "ok"
    assert not (tmp_path / "cache").exists()


def test_packages_that_do_not_import(tmp_path):
    """As where torch and torchvision are not of one set: the symbols of one are missing in the other."""
    for name in ("torch", "torchvision"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('undefined symbol in {name}')")
    done, found = run(tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 6
    assert "checks failed" in done.stderr
    for name in ("torch", "torchvision"):
        assert found[name]["state"] == "failed"
        assert f"does not import: undefined symbol in {name}" in found[name]["found"]
        assert "'torch~=2.11.0' 'torchvision~=0.26.0' 'torchaudio~=2.11.0'" in found[name]["advice"]
    assert found["codec h264"]["state"] == "ok"
    assert found["cache"]["state"] == "ok"


@pytest.mark.slow
def test_a_version_that_ccl_does_not_take(tmp_path):
    install(tmp_path, "timm", version="0.4.12", modules={"timm": ""})
    done, found = run(tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 6
    assert found["timm"]["found"] == "0.4.12, but ccl needs <2,>=1.0.15"
    assert found["timm"]["advice"] == "Install that: pip install 'timm<2,>=1.0.15'"


@pytest.mark.slow
def test_broken_plugins_are_named_and_fail_nothing(tmp_path):
    install_broken(tmp_path)
    done, found = run(tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0
    assert "of others" in found["plugins"]["found"]
    told = [each for each in json.loads(done.stdout) if each["part"] == "plugin"]
    assert told
    assert {each["state"] for each in told} == {"warning"}
    assert all("ccl-broken" in each["found"] + each["advice"] for each in told)


def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    finding = doctor._folder("cache", tmp_path / "a" / "b", "CCL_HOME")
    assert (finding.state, finding.advice) == ("failed", "Name another folder in CCL_HOME.")
    assert "cannot be written: Read-only file system" in finding.found


def refuse(dir):
    raise OSError(30, "Read-only file system")


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_DISK", 1e18)
    finding = doctor._folder("runs", tmp_path, "CCL_RUNS")
    assert finding.state == "warning"
    assert "Make room" in finding.advice


def test_a_check_that_breaks_is_a_line_of_its_own(monkeypatch):
    def broken():
        raise RuntimeError("no such thing")
        yield

    monkeypatch.setattr(doctor, "_CHECKS", (broken, doctor._limits))
    first, second = doctor.examine()
    assert (first.part, first.state, first.found) == ("broken", "failed", "no such thing")
    assert second.part == "open files"


def test_a_codec_without_an_encoder_is_only_looked_up(monkeypatch):
    monkeypatch.setattr(doctor, "_can_encode", lambda name: False)
    assert "not tried" in doctor._codec("h264", "libx264").found
    assert doctor._codec("no-such-codec", "none").state == "warning"


def test_the_table(monkeypatch, capsys):
    findings = [
        doctor.Finding("torch", "ok", "2.11.0"),
        doctor.Finding("cache", "failed", "/c cannot be written", "Name another folder."),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    assert main(["doctor"]) == 6
    out, error = capsys.readouterr()
    assert out.splitlines() == [
        "state   part   found                 what to do",
        "ok      torch  2.11.0",
        "failed  cache  /c cannot be written  Name another folder.",
    ]
    assert "1 of 2 checks failed" in error


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_frames_that_were_encoded_are_decoded(kind):
    names = doctor._VIDEO if kind == "video" else doctor._AUDIO
    for encoder in filter(doctor._can_encode, names.values()):
        assert doctor._round_trip(encoder, audio=kind == "audio") >= 1
