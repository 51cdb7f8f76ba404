"""Checks of the installation and the machine, with advice for each problem.

Each check imports its own packages, so that a broken package fails one check only.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ccl_cli import __version__
from ccl_cli.utils.download import forbidden
from ccl_cli.utils.paths import cache_dir, data_dir, runs_dir

_GB = 1e9
_TORCH_SET = ("torch", "torchvision", "torchaudio")  # their versions must match
_PACKAGES = (
    *_TORCH_SET,
    "numpy",
    "av",
    "timm",
    "accelerate",
    "safetensors",
    "pytorchvideo",
    "huggingface_hub",
    "typer",
    "pydantic",
    "psutil",
)
_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "opus")
_ENCODERS = ("libx264", "aac")  # for packing videos
_MIN_MEMORY, _MIN_DISK, _MIN_SHARED_MEMORY, _MIN_FILES = 4 * _GB, 5 * _GB, 0.5 * _GB, 1024
_VARIABLES = (
    "CCL_OFFLINE",
    "HF_HUB_OFFLINE",
    "CCL_TRUST_REMOTE_CODE",
    "HF_HOME",
    "HF_ENDPOINT",
    "TORCH_HOME",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)
_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia")


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Attributes:
        name: Name of the check.
        state: "ok", "warning" (a feature may be unavailable) or "failed" (commands will fail).
        detail: Versions, sizes, or the error.
        advice: How to fix the problem; "" if there is none.
    """

    name: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    advice: str = ""


class _PackageBroken(Exception):
    """A package that a check needs cannot be imported; another check reports the package itself."""


def run_checks() -> Iterator[CheckResult]:
    """Yield the results of all checks; an exception in a check is a failed result."""
    for check in _CHECKS:
        name = check.__name__.strip("_")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from check()
        except _PackageBroken as error:
            yield CheckResult(
                name, "warning", f"not checked: {error} cannot be imported", "See the check of this package."
            )
        except Exception as error:
            yield CheckResult(name, "failed", _message(error), "Please report this.")


@cache
def _import_error(name: str) -> str | None:
    """Import a package; return the error message, or None on success."""
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        return _message(error)
    return None


def _require(*names: str) -> None:
    """Abort a check whose packages cannot be imported."""
    if broken := [name for name in names if _import_error(name) is not None]:
        raise _PackageBroken(" and ".join(broken))


def _warn_if(condition: bool, name: str, detail: str, advice: str) -> CheckResult:
    return CheckResult(name, "warning", detail, advice) if condition else CheckResult(name, "ok", detail)


def _versions() -> Iterator[CheckResult]:
    yield CheckResult("ccl", "ok", f"{__version__} in {Path(__file__).parent}")
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield CheckResult("python", "ok", f"{python}, {sys.prefix}")
    requirements = _requirements()
    for name in _PACKAGES:
        yield _package(name, requirements)


def _package(name: str, requirements: dict[str, str]) -> CheckResult:
    """Check that a package is installed, can be imported, and has a supported version."""
    required = requirements.get(name, "")
    install = f"pip install '{name}{required}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return CheckResult(name, "failed", "not installed", f"Install it: {install}")
    if error := _import_error(name):
        advice = f"Reinstall it: {install}"
        if name in _TORCH_SET:
            packages = " ".join(f"'{each}{requirements.get(each, '')}'" for each in _TORCH_SET)
            advice = f"Install matching versions of all three: pip install {packages}"
        elif any(map(_import_error, _TORCH_SET)):
            advice = "Fix torch, torchvision and torchaudio first."
        return CheckResult(name, "failed", f"{version} cannot be imported: {error}", advice)
    if not _satisfies(version, required):
        detail = f"{version}, but ccl requires {required}"
        return CheckResult(name, "failed", detail, f"Install a supported version: {install}")
    return CheckResult(name, "ok", version)


def _requirements() -> dict[str, str]:
    """Version specifiers by package; empty if ccl's metadata or ``packaging`` is not installed."""
    if _import_error("packaging"):
        return {}
    from packaging.requirements import Requirement

    try:
        texts = importlib.metadata.requires("ccl-cli") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    requirements = [Requirement(text) for text in texts]
    return {each.name: str(each.specifier) for each in requirements if each.marker is None}


def _satisfies(version: str, required: str) -> bool:
    if not required:
        return True
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(required).contains(version, prereleases=True)


def _processor() -> Iterator[CheckResult]:
    _require("torch")
    import torch

    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield CheckResult("cores", "ok", f"{count}; torch uses {torch.get_num_threads()}")
    capabilities = torch.cpu.get_capabilities()
    native = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if capabilities.get(name)]
    if native:
        yield CheckResult("bf16 on the CPU", "ok", f"in hardware ({', '.join(native)})")
    else:
        advice = "Use --precision fp32 on the CPU, which is the default."
        yield CheckResult("bf16 on the CPU", "ok", "emulated", advice)


def _gpus() -> Iterator[CheckResult]:
    _require("torch")
    import torch

    if not torch.cuda.is_available():
        yield _without_cuda(torch.version.cuda, torch.backends.mps.is_available())
        return
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        precision = "bf16 and fp16" if device.major >= 8 else "fp16, bf16 only emulated"
        detail = f"{device.name}, {device.total_memory / _GB:.0f} GB, {precision}"
        yield CheckResult(f"gpu {number}", "ok", detail)


def _without_cuda(cuda: str | None, apple: bool) -> CheckResult:
    build = f"torch is built for {'CUDA ' + cuda if cuda else 'the CPU'}"
    if apple:
        return CheckResult("gpu", "ok", f"Apple's (mps); {build}", "ccl has not been tested on it.")
    if _NVIDIA_DRIVER.exists():
        detail = f"an NVIDIA driver is installed, but torch cannot use the GPU; {build}"
        advice = "Check nvidia-smi and CUDA_VISIBLE_DEVICES. The driver must support torch's CUDA version."
        return CheckResult("gpu", "warning", detail, advice)
    return CheckResult(
        "gpu", "ok", f"none available to torch; {build}", "Everything runs on the CPU, but slower."
    )


def _codecs() -> Iterator[CheckResult]:
    _require("av")
    import av

    present = [name for name in _DECODERS if name in av.codecs_available]
    absent = [name for name in _DECODERS if name not in present]
    detail = ", ".join(present) + f"; not {', '.join(absent)}" * bool(absent)
    advice = (
        "Files with these codecs cannot be decoded. Install the wheel of PyAV: pip install "
        "--force-reinstall av"
    )
    yield _warn_if(bool(absent), "decoders", detail, advice)
    absent = [name for name in _ENCODERS if name not in av.codecs_available]
    detail = f"not {', '.join(absent)}" if absent else ", ".join(_ENCODERS)
    advice = "Required by ccl data pack --format mp4: pip install --force-reinstall av"
    yield _warn_if(bool(absent), "encoders", detail, advice)


def _folders() -> Iterator[CheckResult]:
    yield _folder("cache", cache_dir(), "CCL_HOME")
    if not _import_error("huggingface_hub"):
        from huggingface_hub.constants import HF_HUB_CACHE

        yield _folder("Hugging Face", Path(HF_HUB_CACHE), "HF_HOME")
    yield _folder("data", data_dir(), "CCL_DATA")
    yield _folder("runs", runs_dir(), "CCL_RUNS")


def _folder(name: str, folder: Path, variable: str) -> CheckResult:
    folder = folder.absolute()
    try:
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror}"
        return CheckResult(name, "failed", detail, f"Set {variable} to another folder.")
    detail = f"{folder}{', not created yet' * (existing != folder)}, {free / _GB:.0f} GB free"
    return _warn_if(
        free < _MIN_DISK, name, detail, f"Free some disk space, or set {variable} to another folder."
    )


def _memory() -> Iterator[CheckResult]:
    _require("psutil")
    import psutil

    memory = psutil.virtual_memory()
    free, total = float(memory.available), float(memory.total)
    limit, used = (_cgroup_bytes(name) for name in ("memory.max", "memory.current"))
    if limit is not None and limit < total:  # the limit of a container
        free, total = min(free, limit - (used or 0.0)), limit
    detail = f"{free / _GB:.1f} of {total / _GB:.1f} GB available"
    yield _warn_if(free < _MIN_MEMORY, "memory", detail, "Lower --batch-size and --workers.")
    if Path("/dev/shm").is_dir():  # decoding processes pass batches through it
        free = shutil.disk_usage("/dev/shm").free
        advice = "Use --workers 0, or start the container with --shm-size=2g."
        yield _warn_if(free < _MIN_SHARED_MEMORY, "shared memory", f"{free / _GB:.1f} GB free", advice)


def _cgroup_bytes(name: str) -> float | None:
    """A value of this process's control group, in bytes; None without a group or without a limit."""
    try:
        return float((_CGROUP / name).read_text())
    except (OSError, ValueError):
        return None


def _limits() -> Iterator[CheckResult]:
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = f"Raise the limit to use many --workers: ulimit -n {_MIN_FILES}"
    yield _warn_if(0 <= soft < _MIN_FILES, "open files", f"at most {soft}", advice)


def _plugins() -> Iterator[CheckResult]:
    from ccl_cli import registry

    scan = registry.scan()
    foreign = [each for each in scan.plugins if each.distribution != registry.OWN_DISTRIBUTION]
    detail = f"{len(scan.plugins) - len(foreign)} built in, {len(foreign)} from other packages"
    if scan.plugins:
        yield CheckResult("plugins", "ok", detail)
    else:
        yield CheckResult("plugins", "failed", detail, "Reinstall ccl.")
    for problem in scan.problems:
        yield CheckResult("plugin", "warning", problem, "Update or uninstall that package.")
    for plugin in foreign:
        try:
            registry.load(plugin)
        except Exception as error:
            advice = f"Update or uninstall {plugin.distribution}."
            yield CheckResult("plugin", "warning", _message(error), advice)


def _environment() -> Iterator[CheckResult]:
    variables = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    yield CheckResult("environment", "ok", ", ".join(variables) or "no variables that affect ccl")
    if variable := forbidden():
        advice = "Weights and models must be on this machine. Unset the variable to download them."
        yield CheckResult("downloads", "ok", f"disabled by {variable}", advice)
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    detail = (
        f"{sys.stdout.encoding}, {'a terminal' if sys.stdout.isatty() else 'not a terminal: plain output'}"
    )
    advice = "Non-ASCII names may be displayed incorrectly: set PYTHONUTF8=1."
    yield _warn_if(ascii_only, "output", detail, advice)


def _message(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "message", error)).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


_CHECKS: tuple[Callable[[], Iterator[CheckResult]], ...] = (
    _versions,
    _processor,
    _gpus,
    _codecs,
    _folders,
    _memory,
    _limits,
    _plugins,
    _environment,
)
