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
    assert (results["decoders"]["state"], results["encoders"]["state"]) == ("ok", "ok")
    assert str(tmp_path / "cache") in results["cache"]["detail"]
    assert not (tmp_path / "cache").exists()


def test_packages_that_do_not_import(tmp_path):
    """As where torch and torchvision are not of one set: the symbols of one are missing in the other."""
    for name in ("torch", "torchvision"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('undefined symbol in {name}')")
    process, results = run(tmp_path, CCL_HOME="/proc/ccl", HF_HUB_OFFLINE="1")
    assert process.returncode == 6
    for name in ("torch", "torchvision"):
        assert results[name]["state"] == "failed"
        assert f"cannot be imported: undefined symbol in {name}" in results[name]["detail"]
        assert "'torch~=2.11.0' 'torchvision~=0.26.0' 'torchaudio~=2.11.0'" in results[name]["advice"]
    assert (results["decoders"]["state"], results["gpus"]["state"]) == ("ok", "failed")
    assert results["cache"]["state"] == "failed"
    assert "CCL_HOME" in results["cache"]["advice"]
    assert results["downloads"]["detail"] == "disabled by HF_HUB_OFFLINE"


PACKAGES = [
    "av",
    *(pytest.param(name, marks=pytest.mark.long) for name in ("numpy", "timm", "packaging", "psutil")),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_any_package_may_be_broken(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('gone')")
    process, results = run(tmp_path)
    assert process.returncode == (6 if name in results else 0)
    assert name not in results or results[name]["state"] == "failed"


@pytest.mark.slow
def test_a_version_that_ccl_does_not_take_and_broken_plugins(tmp_path):
    install(tmp_path, "timm", version="0.4.12", modules={"timm": ""})
    install_broken(tmp_path)
    process, results = run(tmp_path)
    assert process.returncode == 6
    assert results["timm"]["detail"] == "0.4.12, but ccl requires <2,>=1.0.25"
    assert results["plugins"]["state"] == "ok"
    plugins = [each for each in json.loads(process.stdout) if each["name"] == "plugin"]
    assert sum("ccl-broken" in each["detail"] for each in plugins) >= 2
    assert {each["state"] for each in plugins} == {"warning"}


@pytest.mark.parametrize(
    ("limit", "state", "detail"),
    [("max\n", "ok", "60.0 of 64.0 GB available"), ("3000000000\n", "warning", "2.0 of 3.0 GB available")],
)
def test_the_limit_of_a_container_counts(tmp_path, monkeypatch, limit, state, detail):
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64e9, available=60e9))
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("1000000000\n")
    result = next(doctor._memory())
    assert (result.state, result.detail) == (state, detail)


def test_what_is_short_or_absent_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_MIN_DISK", 1e18)
    monkeypatch.setattr("av.codecs_available", {"h264", "libx264"})
    monkeypatch.setattr(doctor, "_NVIDIA_DRIVER", tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for check in (doctor._folders, doctor._codecs, doctor._gpus):
        assert {result.state for result in check()} == {"warning"}


def test_a_check_that_breaks_is_a_line_of_its_own(monkeypatch):
    def broken():
        raise RuntimeError("no such thing")

    monkeypatch.setattr(doctor, "_CHECKS", (broken, doctor._limits))
    first, second = doctor.run_checks()
    assert (first.name, first.state, first.detail) == ("broken", "failed", "no such thing")
    assert second.name == "open files"
