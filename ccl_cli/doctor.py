"""Checks of the installation and the machine, with advice for each problem.

Each check imports its own packages, so that a broken package fails only the checks that need it.
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
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ccl_cli import __version__
from ccl_cli.utils.download import offline_variable
from ccl_cli.utils.paths import cache_dir, data_dir, runs_dir
from ccl_cli.utils.processes import cores
from ccl_cli.utils.text import in_short, one_line

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_GB = 1e9
_TORCH_SET = ("torch", "torchvision", "torchaudio")  # their versions must match
_PACKAGES = (
    *_TORCH_SET,
    *("numpy", "av", "timm", "accelerate", "safetensors", "pytorchvideo", "huggingface_hub", "typer"),
    *("pydantic", "psutil"),
)
_CODECS = {
    "decoders": (("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "opus"), "Files cannot be decoded"),
    "encoders": (("libx264", "aac"), "`ccl data pack --format mp4` does not work"),
}
_MIN_MEMORY, _MIN_DISK, _MIN_SHARED_MEMORY, _MIN_FILES = 4 * _GB, 5 * _GB, 0.5 * _GB, 1024
_VARIABLES = (
    *("CCL_OFFLINE", "HF_HUB_OFFLINE", "CCL_TRUST_REMOTE_CODE", "HF_HOME", "HF_ENDPOINT", "TORCH_HOME"),
    *("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
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


def run_checks() -> Iterator[CheckResult]:
    """Yield the results of all checks; an exception in a check is a failed result."""
    for check in _CHECKS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from check()
        except (Exception, SystemExit) as error:
            advice = "Fix the packages that failed; if there are none, please report this."
            yield CheckResult(check.__name__.strip("_"), "failed", _message(error), advice)


def _warn_if(condition: bool, name: str, detail: str, advice: str) -> CheckResult:
    return CheckResult(name, "warning", detail, advice) if condition else CheckResult(name, "ok", detail)


def _versions() -> Iterator[CheckResult]:
    yield CheckResult("ccl", "ok", f"{__version__} in {Path(__file__).parent}")
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield CheckResult("python", "ok", f"{python}, {sys.prefix}")
    required = _requirements()
    for name in _PACKAGES:
        yield _package(name, required)


def _package(name: str, required: dict[str, SpecifierSet]) -> CheckResult:
    """Check that a package is installed, can be imported, and has a supported version."""
    together = _TORCH_SET if name in _TORCH_SET else (name,)
    advice = "pip install " + " ".join(f"'{each}{required.get(each, '')}'" for each in together)
    try:
        version = importlib.metadata.version(name)
        importlib.import_module(name)
    except importlib.metadata.PackageNotFoundError:
        return CheckResult(name, "failed", "not installed", advice)
    except (Exception, SystemExit) as error:
        return CheckResult(name, "failed", f"{version} cannot be imported: {_message(error)}", advice)
    if name in required and not required[name].contains(version, prereleases=True):
        return CheckResult(name, "failed", f"{version}, but ccl requires {required[name]}", advice)
    return CheckResult(name, "ok", version)


def _requirements() -> dict[str, SpecifierSet]:
    """Supported versions by package; empty if ccl's metadata or ``packaging`` is not installed."""
    try:
        from packaging.requirements import Requirement

        requirements = map(Requirement, importlib.metadata.requires("ccl-cli") or [])
    except (Exception, SystemExit):
        return {}
    return {each.name: each.specifier for each in requirements if each.marker is None}


def _processor() -> Iterator[CheckResult]:
    import torch

    yield CheckResult("cores", "ok", f"{cores()}; torch uses {torch.get_num_threads()}")
    capabilities = torch.cpu.get_capabilities()
    native = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if capabilities.get(name)]
    detail = f"in hardware ({', '.join(native)})" if native else "emulated: --precision fp32 is faster"
    yield CheckResult("bf16 on the CPU", "ok", detail)


def _gpus() -> Iterator[CheckResult]:
    import torch

    build = f"torch is built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'the CPU'}"
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        precision = "bf16 and fp16" if device.major >= 8 else "fp16, bf16 only emulated"
        detail = f"{device.name}, {device.total_memory / _GB:.0f} GB, {precision}"
        yield CheckResult(f"gpu {number}", "ok", detail)
    if not torch.cuda.is_available():
        advice = (
            "An NVIDIA driver is installed: check nvidia-smi, CUDA_VISIBLE_DEVICES and torch's CUDA version."
        )
        yield _warn_if(_NVIDIA_DRIVER.exists(), "gpu", f"none available to torch; {build}", advice)


def _codecs() -> Iterator[CheckResult]:
    import av

    for name, (wanted, effect) in _CODECS.items():
        absent = [codec for codec in wanted if codec not in av.codecs_available]
        present = [codec for codec in wanted if codec not in absent]
        detail = ", ".join(present) + (f"; not {', '.join(absent)}" if absent else "")
        advice = f"{effect}. Install the wheel of PyAV: pip install --force-reinstall av"
        yield _warn_if(bool(absent), name, detail, advice)


def _folders() -> Iterator[CheckResult]:
    from huggingface_hub.constants import HF_HUB_CACHE

    yield _folder("cache", cache_dir(), "CCL_HOME")
    yield _folder("Hugging Face", Path(HF_HUB_CACHE), "HF_HOME")
    yield _folder("data", data_dir(), "CCL_DATA")
    yield _folder("runs", runs_dir(), "CCL_RUNS")


def _folder(name: str, folder: Path, variable: str) -> CheckResult:
    folder, advice = folder.absolute(), f"Free some disk space, or set {variable} to another folder."
    try:
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return CheckResult(name, "failed", f"{folder} cannot be written: {error.strerror}", advice)
    detail = f"{folder}{', not created yet' if existing != folder else ''}, {free / _GB:.0f} GB free"
    return _warn_if(free < _MIN_DISK, name, detail, advice)


def _memory() -> Iterator[CheckResult]:
    import psutil

    memory = psutil.virtual_memory()
    free, total = float(memory.available), float(memory.total)
    try:  # the limit of a container; "max" without one
        limit, used = (float((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free, total = min(free, limit - used), min(total, limit)
    except (OSError, ValueError):
        pass
    detail = f"{free / _GB:.1f} of {total / _GB:.1f} GB available"
    yield _warn_if(free < _MIN_MEMORY, "memory", detail, "Lower --batch-size and --workers.")
    if Path("/dev/shm").is_dir():  # decoding processes pass batches through it
        free = shutil.disk_usage("/dev/shm").free
        advice = "Use --workers 0, or start the container with --shm-size=2g."
        yield _warn_if(free < _MIN_SHARED_MEMORY, "shared memory", f"{free / _GB:.1f} GB free", advice)


def _limits() -> Iterator[CheckResult]:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = f"Raise the limit to use many --workers: ulimit -n {_MIN_FILES}"
    yield _warn_if(0 <= soft < _MIN_FILES, "open files", f"at most {soft}", advice)


def _plugins() -> Iterator[CheckResult]:
    from ccl_cli import registry

    scan = registry.scan()
    foreign = [each for each in scan.plugins if each.distribution != registry.OWN_DISTRIBUTION]
    own = len(scan.plugins) - len(foreign)
    detail = f"{own} built in, {len(foreign)} from other packages"
    yield CheckResult("plugins", "ok" if own else "failed", detail, "" if own else "Reinstall ccl.")
    problems = [*scan.problems]
    for plugin in foreign:
        try:
            registry.load(plugin)
        except Exception as error:
            problems.append(_message(error))
    for problem in problems:
        yield CheckResult("plugin", "warning", problem, "Update or uninstall that package.")


def _environment() -> Iterator[CheckResult]:
    variables = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    yield CheckResult("environment", "ok", ", ".join(variables) or "no variables that affect ccl")
    if variable := offline_variable():
        yield CheckResult("downloads", "ok", f"disabled by {variable}", "Unset the variable to download.")
    encoding = sys.stdout.encoding or ""
    detail = f"{encoding}, {'a terminal' if sys.stdout.isatty() else 'not a terminal: plain output'}"
    advice = "Non-ASCII names may be displayed incorrectly: set PYTHONUTF8=1."
    yield _warn_if(encoding.lower().replace("-", "") != "utf8", "output", detail, advice)


def _message(error: BaseException) -> str:
    return in_short(one_line(getattr(error, "message", error)), 200) or type(error).__name__


_CHECKS: tuple[Callable[[], Iterator[CheckResult]], ...] = (
    *(_versions, _processor, _gpus, _codecs, _folders, _memory, _limits, _plugins, _environment),
)
