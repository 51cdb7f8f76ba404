from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from plugin_folder import install, install_broken

from ccl_cli import doctor


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
def test_torchvision_of_another_set_in_a_cache_that_cannot_be_written(tmp_path):
    """It raises what the loader of shared libraries does, and /proc refuses even the superuser."""
    (tmp_path / "torchvision.py").write_text("raise OSError('libtorch.so: undefined symbol: _ZN3c10')")
    done, found = run(tmp_path, PYTHONPATH=str(tmp_path), CCL_HOME="/proc/ccl", HF_HUB_OFFLINE="1")
    assert done.returncode == 6
    assert found["torch"]["state"] == "ok"
    assert "undefined symbol" in found["torchvision"]["found"]
    assert found["timm"]["advice"] == "Fix torch, torchvision and torchaudio first."
    assert found["cache"]["state"] == "failed"
    assert found["cache"]["advice"] == "Name another folder in CCL_HOME."
    assert found["downloads"]["found"] == "switched off by HF_HUB_OFFLINE"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "av",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("numpy", "timm", "accelerate", "packaging", "huggingface_hub", "scipy")
        ),
    ],
)
def test_any_package_may_be_broken(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('gone')")
    done, found = run(tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode in (0, 6)
    assert not any("report this" in each["advice"] for each in found.values())
    assert name not in found or found[name]["state"] == "failed"
    if name in ("av", "numpy"):
        assert name in found["codecs"]["found"]


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
    ours = [each for each in told if "ccl-broken" in each["found"] + each["advice"]]  # others may be there
    assert len(ours) >= 2
    assert {each["state"] for each in told} == {"warning"}


def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    finding = doctor._folder("cache", tmp_path / "a" / "b", "CCL_HOME")
    assert (finding.state, finding.advice) == ("failed", "Name another folder in CCL_HOME.")
    assert "cannot be written: Read-only file system" in finding.found


def refuse(dir):
    raise OSError(30, "Read-only file system")


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    finding = doctor._folder("cache", tmp_path / "file" / "cache", "CCL_HOME")
    assert finding.state == "failed"
    assert "cannot be written: Not a directory" in finding.found


def test_many_files_are_not_counted_for_long(tmp_path, monkeypatch):
    (tmp_path / "one").write_bytes(bytes(10_000_000))
    assert "holds 0.01 GB" in doctor._folder("data", tmp_path, "CCL_DATA").found
    monkeypatch.setattr(doctor, "_COUNTING", -1.0)
    assert "holds more than 0.01 GB" in doctor._folder("data", tmp_path, "CCL_DATA").found


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_GROUP", tmp_path)
    monkeypatch.setattr(doctor, "_meminfo", lambda: {"MemTotal": 64e9, "MemAvailable": 60e9})
    assert next(doctor._memory()).found == "60.0 of 64.0 GB available"
    (tmp_path / "memory.max").write_text("max\n")
    assert next(doctor._memory()).found == "60.0 of 64.0 GB available"
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("1000000000\n")
    limited = next(doctor._memory())
    assert (limited.state, limited.found) == ("warning", "2.0 of 3.0 GB available")


def test_a_gpu_that_torch_cannot_use_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_NVIDIA", tmp_path)
    assert doctor._without_cuda("13.0", apple=False).state == "warning"
    monkeypatch.setattr(doctor, "_NVIDIA", tmp_path / "absent")
    assert (
        doctor._without_cuda(None, apple=False).found == "none that torch can use; torch is built for the CPU"
    )
    assert "(mps)" in doctor._without_cuda(None, apple=True).found


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


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_frames_that_were_encoded_are_decoded(kind):
    names = doctor._VIDEO if kind == "video" else doctor._AUDIO
    for encoder in filter(doctor._can_encode, names.values()):
        assert doctor._round_trip(encoder, audio=kind == "audio") >= 1
