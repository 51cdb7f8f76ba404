from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from ccl_cli import doctor
from ccl_cli.__main__ import main
from tests.helpers.plugin_folder import install, install_broken


def run(tmp_path, **environment):
    """The command in a process of its own: what it imports must not be there already."""
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {"CCL_HOME": str(tmp_path / "cache"), "PYTHONPATH": path} | environment
    command = [sys.executable, "-m", "ccl_cli", "doctor", "--json"]
    process = subprocess.run(
        command, env=os.environ | environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert "Traceback" not in process.stderr
    return process, {each["name"]: each for each in json.loads(process.stdout)}


def test_a_sound_installation(tmp_path, capsys):
    code, printed = main(["doctor", "--json"]), capsys.readouterr()
    results = {each["name"]: each for each in json.loads(printed.out)}
    assert (code, printed.err) == (0, "")
    assert {each["state"] for each in results.values()} <= {"ok", "warning"}
    assert results["torch"]["detail"].startswith("2.11")
    assert results["decoders"]["detail"] == ", ".join(doctor._DECODERS)
    assert results["encoders"]["state"] == "ok"
    assert str(tmp_path / "cache") in results["cache"]["detail"]
    assert results["cache"]["state"] == "ok"
    assert not (tmp_path / "cache").exists()


def test_packages_that_do_not_import(tmp_path):
    """As where torch and torchvision are not of one set: the symbols of one are missing in the other."""
    for name in ("torch", "torchvision"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('undefined symbol in {name}')")
    process, results = run(tmp_path, CCL_HOME="/proc/ccl", HF_HUB_OFFLINE="1")
    assert process.returncode == 6
    assert "checks failed" in process.stderr
    for name in ("torch", "torchvision"):
        assert results[name]["state"] == "failed"
        assert f"cannot be imported: undefined symbol in {name}" in results[name]["detail"]
        assert "'torch~=2.11.0' 'torchvision~=0.26.0' 'torchaudio~=2.11.0'" in results[name]["advice"]
    assert results["timm"]["advice"] == "Fix torch, torchvision and torchaudio first."
    assert results["decoders"]["state"] == "ok"
    assert results["cache"]["state"] == "failed"
    assert results["cache"]["advice"] == "Set CCL_HOME to another folder."
    assert results["downloads"]["detail"] == "disabled by HF_HUB_OFFLINE"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "av",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("numpy", "timm", "accelerate", "packaging", "huggingface_hub", "scipy", "psutil")
        ),
    ],
)
def test_any_package_may_be_broken(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('gone')")
    process, results = run(tmp_path)
    assert process.returncode in (0, 6)
    assert not any("report this" in each["advice"] for each in results.values())
    assert name not in results or results[name]["state"] == "failed"
    if name == "av":
        assert results["codecs"]["detail"] == "not checked: av cannot be imported"


@pytest.mark.slow
def test_a_version_that_ccl_does_not_take_and_broken_plugins(tmp_path):
    install(tmp_path, "timm", version="0.4.12", modules={"timm": ""})
    install_broken(tmp_path)
    process, results = run(tmp_path)
    assert process.returncode == 6
    assert results["timm"]["detail"] == "0.4.12, but ccl requires <2,>=1.0.25"
    assert results["timm"]["advice"] == "Install a supported version: pip install 'timm<2,>=1.0.25'"
    assert results["plugins"]["state"] == "ok"
    plugins = [each for each in json.loads(process.stdout) if each["name"] == "plugin"]
    assert sum("ccl-broken" in each["detail"] + each["advice"] for each in plugins) >= 2
    assert {each["state"] for each in plugins} == {"warning"}


def test_folders(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    result = doctor._folder("cache", tmp_path / "file" / "cache", "CCL_HOME")
    assert (result.state, result.advice) == ("failed", "Set CCL_HOME to another folder.")
    assert "cannot be written: Not a directory" in result.detail
    assert doctor._folder("runs", tmp_path, "CCL_RUNS").state == "ok"
    monkeypatch.setattr(doctor, "_MIN_DISK", 1e18)
    result = doctor._folder("runs", tmp_path, "CCL_RUNS")
    assert (result.state, result.advice) == (
        "warning",
        "Free some disk space, or set CCL_RUNS to another folder.",
    )


@pytest.mark.parametrize(
    ("limit", "state", "detail"),
    [
        (None, "ok", "60.0 of 64.0 GB available"),
        ("max\n", "ok", "60.0 of 64.0 GB available"),
        ("3000000000\n", "warning", "2.0 of 3.0 GB available"),
    ],
)
def test_the_limit_of_a_container_counts(tmp_path, monkeypatch, limit, state, detail):
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64e9, available=60e9))
    if limit:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("1000000000\n")
    result = next(doctor._memory())
    assert (result.state, result.detail) == (state, detail)


def test_a_gpu_that_torch_cannot_use_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_NVIDIA_DRIVER", tmp_path)
    assert doctor._without_cuda("13.0", apple=False).state == "warning"
    monkeypatch.setattr(doctor, "_NVIDIA_DRIVER", tmp_path / "absent")
    result = doctor._without_cuda(None, apple=False)
    assert result.detail == "none available to torch; torch is built for the CPU"
    assert "(mps)" in doctor._without_cuda(None, apple=True).detail


def test_a_check_that_breaks_is_a_line_of_its_own(monkeypatch):
    def broken():
        raise RuntimeError("no such thing")
        yield

    monkeypatch.setattr(doctor, "_CHECKS", (broken, doctor._limits))
    first, second = doctor.run_checks()
    assert (first.name, first.state, first.detail) == ("broken", "failed", "no such thing")
    assert second.name == "open files"


def test_a_codec_that_is_absent(monkeypatch):
    import av

    monkeypatch.setattr(av, "codecs_available", {*doctor._DECODERS} - {"av1"})
    decoders, encoders = doctor._codecs()
    assert (decoders.state, decoders.detail) == ("warning", "h264, hevc, vp9, mpeg4, aac, mp3, opus; not av1")
    assert (encoders.state, encoders.detail) == ("warning", "not libx264")
