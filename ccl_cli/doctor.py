"""What this machine and its installation can do, and what to do about what they cannot.

Nothing heavy is imported here: each check imports what it looks at, so that one that is broken costs its own
line alone.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ccl_cli import __version__
from ccl_cli.utils.download import forbidden
from ccl_cli.utils.paths import cache_dir, data_dir, runs_dir

State = Literal["ok", "warning", "failed"]

_GB = 1e9
_TOGETHER = ("torch", "torchvision", "torchaudio")  # they import together only as one set
_SHOWN = (
    "numpy",
    "av",
    "timm",
    "accelerate",
    "safetensors",
    "pytorchvideo",
    "huggingface_hub",
    "typer",
    "pydantic",
)
# Decoder, the encoder that makes something to decode, and what for.
_VIDEO = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1", "mpeg4": "mpeg4"}
_QUIET = {"libx265": {"x265-params": "log-level=none"}}
_AUDIO = {"aac": "aac", "mp3": "libmp3lame", "opus": "libopus"}
_MEMORY, _DISK, _SHARED, _FILES = 4 * _GB, 5 * _GB, 0.5 * _GB, 1024
_VARIABLES = (
    "CCL_OFFLINE",
    "HF_HUB_OFFLINE",
    "HF_HOME",
    "HF_ENDPOINT",
    "TORCH_HOME",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)
_GROUP = Path("/sys/fs/cgroup")
_NVIDIA = Path("/proc/driver/nvidia")
_COUNTING = 0.3  # seconds for adding up what is in one folder


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        part: What was looked at.
        state: "ok"; "warning", where something may be missed; "failed", where work will fail.
        found: What is there.
        advice: What to do; "" where nothing need be done.
    """

    part: str
    state: State
    found: str
    advice: str = ""


Check = Callable[[], Iterator[Finding]]


class _NotThere(Exception):
    """A package that a check looks at does not import; the package has a line of its own."""


def examine() -> Iterator[Finding]:
    """All checks, as they end; a check that breaks is a finding of its own."""
    for check in _CHECKS:
        part = check.__name__.strip("_")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from check()
        except _NotThere as error:
            yield Finding(part, "warning", f"not looked at: {error} does not import", "See its own line.")
        except Exception as error:
            yield Finding(part, "failed", _said(error), "Please report this.")


@cache
def _broken(name: str) -> str | None:
    """What is said when a package is imported; None where it imports."""
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        return _said(error)
    return None


def _need(*names: str) -> None:
    """Leave a check whose packages do not import."""
    if absent := [name for name in names if _broken(name) is not None]:
        raise _NotThere(" and ".join(absent))


def _versions() -> Iterator[Finding]:
    yield Finding("ccl", "ok", f"{__version__} in {Path(__file__).parent}")
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", "ok", f"{python}, {sys.prefix}")
    for name in (*_TOGETHER, *_SHOWN):
        yield _package(name)


def _package(name: str) -> Finding:
    """Whether a package is there, in a version that ccl asks for, and imports."""
    wanted = _requirements().get(name, "")
    install = f"pip install '{name}{wanted}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "failed", "not installed", f"Install it: {install}")
    if said := _broken(name):
        return Finding(name, "failed", f"{version} does not import: {said}", _remedy(name, install))
    if not _fits(version, wanted):
        return Finding(name, "failed", f"{version}, but ccl needs {wanted}", f"Install that: {install}")
    return Finding(name, "ok", version)


def _remedy(name: str, install: str) -> str:
    if name in _TOGETHER:
        return f"Install the three as one set: pip install {_set()}"
    if any(map(_broken, _TOGETHER)):
        return "Fix torch, torchvision and torchaudio first."
    return f"Install it again: {install}"


def _requirements() -> dict[str, str]:
    """By name, the versions that this ccl asks for; none where its metadata, or packaging, are not there."""
    if _broken("packaging"):
        return {}
    from packaging.requirements import Requirement

    try:
        texts = importlib.metadata.requires("ccl-cli") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    requirements = [Requirement(text) for text in texts]
    return {each.name: str(each.specifier) for each in requirements if each.marker is None}


def _fits(version: str, wanted: str) -> bool:
    if not wanted:
        return True
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def _set() -> str:
    return " ".join(f"'{name}{_requirements().get(name, '')}'" for name in _TOGETHER)


def _processor() -> Iterator[Finding]:
    _need("torch")
    import torch

    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("cores", "ok", f"{count}, of which torch uses {torch.get_num_threads()}")
    flags = _flags()
    has = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported() and flags & {"avx512_bf16", "amx_bf16"}:
        yield Finding("bf16 on the CPU", "ok", f"in hardware ({', '.join(has)})")
    else:
        found = f"emulated ({', '.join(has) or 'no AVX'})"
        yield Finding("bf16 on the CPU", "ok", found, "On the CPU use --precision fp32, the default.")


def _flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "").split())


def _gpus() -> Iterator[Finding]:
    _need("torch")
    import torch

    if not torch.cuda.is_available():
        yield _without_cuda(torch.version.cuda, torch.backends.mps.is_available())
        return
    for number in range(torch.cuda.device_count()):
        there = torch.cuda.get_device_properties(number)
        precision = "bf16 and fp16" if there.major >= 8 else "fp16, bf16 only emulated"
        found = f"{there.name}, {there.total_memory / _GB:.0f} GB, {precision}"
        yield Finding(f"gpu {number}", "ok", found)


def _without_cuda(built: str | None, apple: bool) -> Finding:
    for_what = f"torch is built for {'CUDA ' + built if built else 'the CPU'}"
    if apple:
        return Finding("gpu", "ok", f"Apple's (mps); {for_what}", "ccl has not been tried on it.")
    if _NVIDIA.exists():
        found = f"an NVIDIA driver is there, but torch cannot use its GPU; {for_what}"
        advice = "Look at nvidia-smi and CUDA_VISIBLE_DEVICES; the driver must be as new as torch's CUDA."
        return Finding("gpu", "warning", found, advice)
    return Finding(
        "gpu", "ok", f"none that torch can use; {for_what}", "Everything runs on the CPU, only slower."
    )


def _codecs() -> Iterator[Finding]:
    _need("av", "numpy")
    for decoder, encoder in (_VIDEO | _AUDIO).items():
        yield _codec(decoder, encoder)
    missing = [name for name in ("libx264", "aac") if not _can_encode(name)]
    if missing:
        yield Finding(
            "encoders",
            "warning",
            f"no {' and no '.join(missing)}",
            "ccl data pack --format mp4 needs libx264: pip install --force-reinstall av",
        )


def _codec(decoder: str, encoder: str) -> Finding:
    """Encode a little and decode it; without an encoder, whether there is a decoder."""
    import av

    part = f"codec {decoder}"
    if decoder not in av.codecs_available:
        advice = "Such files cannot be read. Install PyAV from its wheel: pip install --force-reinstall av"
        return Finding(part, "warning", "no decoder", advice)
    if not _can_encode(encoder):
        return Finding(part, "ok", "there is a decoder (not tried: no encoder)")
    try:
        count = _round_trip(encoder, audio=decoder in _AUDIO)
    except (av.FFmpegError, ValueError) as error:
        return Finding(part, "warning", _said(error), "Such files may not be readable.")
    if not count:
        return Finding(part, "warning", "what was encoded could not be decoded", "Install PyAV again.")
    return Finding(part, "ok", f"decoded {count} frames")


def _can_encode(name: str) -> bool:
    import av

    try:
        return bool(av.codec.Codec(name, "w").is_encoder)
    except ValueError:
        return False


def _round_trip(encoder: str, audio: bool) -> int:
    """Encode a fraction of a second into memory; how many frames come out again."""
    import av
    import av.logging
    import numpy as np

    av.logging.set_level(None)
    os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder talks past FFmpeg's log
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        rate = 48_000 if audio else Fraction(25)
        stream: Any = container.add_stream(encoder, rate=rate, options=_QUIET.get(encoder, {}))
        if audio:
            stream.layout = "mono"
            frames = [_tone()]
        else:
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            picture = np.zeros((64, 64, 3), np.uint8)
            frames = [av.VideoFrame.from_ndarray(picture + 20 * number, "rgb24") for number in range(4)]
        for number, frame in enumerate(frames):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        return sum(len(packet.decode()) for packet in container.demux())


def _tone() -> Any:
    """A tenth of a second."""
    import av
    import numpy as np

    wave = np.sin(np.arange(4800) / 10, dtype=np.float32)[None]
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.sample_rate = 48_000
    return frame


def _folders() -> Iterator[Finding]:
    yield _folder("cache", cache_dir(), "CCL_HOME")
    if not _broken("huggingface_hub"):
        from huggingface_hub.constants import HF_HUB_CACHE

        yield _folder("Hugging Face", Path(HF_HUB_CACHE), "HF_HOME")
    yield _folder("data", data_dir(), "CCL_DATA")
    yield _folder("runs", runs_dir(), "CCL_RUNS")


def _folder(part: str, folder: Path, variable: str) -> Finding:
    folder = folder.absolute()
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free
    except OSError as error:
        found = f"{folder} cannot be written: {error.strerror}"
        return Finding(part, "failed", found, f"Name another folder in {variable}.")
    held = _held(folder) if there == folder else "not there yet"
    found = f"{folder}: {held}, {free / _GB:.0f} GB free"
    if free < _DISK:
        return Finding(part, "warning", found, f"Make room, or name another folder in {variable}.")
    return Finding(part, "ok", found)


def _held(folder: Path) -> str:
    """What all files below a folder take; of very many, those that can be counted in a moment."""
    total, end = 0, time.monotonic() + _COUNTING
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(place) / name).st_size
            except OSError:  # removed meanwhile
                continue
            if time.monotonic() > end:
                return f"holds more than {total / _GB:.2f} GB"
    return f"holds {total / _GB:.2f} GB"


def _memory() -> Iterator[Finding]:
    fields = _meminfo()
    if not fields:
        return
    free, total = fields.get("MemAvailable", 0.0), fields.get("MemTotal", 0.0)
    limit, used = (_of_group(name) for name in ("memory.max", "memory.current"))
    if limit is not None and limit < total:  # a container's, which the machine's own figures do not show
        free, total = min(free, limit - (used or 0.0)), limit
    found = f"{free / _GB:.1f} of {total / _GB:.1f} GB available"
    advice = "" if free >= _MEMORY else "Lower --batch-size and --workers."
    yield Finding("memory", "warning" if advice else "ok", found, advice)
    if Path("/dev/shm").is_dir():  # where the decoding processes hand their batches over
        free = shutil.disk_usage("/dev/shm").free
        advice = "" if free >= _SHARED else "Use --workers 0, or give the container more: --shm-size=2g."
        yield Finding("shared memory", "warning" if advice else "ok", f"{free / _GB:.1f} GB free", advice)


def _meminfo() -> dict[str, float]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {name: float(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines)}


def _of_group(name: str) -> float | None:
    """A figure of the control group that this process is in; None where there is none, or no limit."""
    try:
        return float((_GROUP / name).read_text())
    except (OSError, ValueError):
        return None


def _limits() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = "" if soft < 0 or soft >= _FILES else f"Raise it where many --workers run: ulimit -n {_FILES}"
    yield Finding("open files", "warning" if advice else "ok", f"at most {soft}", advice)


def _plugins() -> Iterator[Finding]:
    from ccl_cli import registry

    scan = registry.scan()
    strangers = [each for each in scan.plugins if each.distribution != registry.OWN_DISTRIBUTION]
    found = f"{len(scan.plugins) - len(strangers)} of ccl itself, {len(strangers)} of others"
    yield Finding(
        "plugins", "ok" if scan.plugins else "failed", found, "" if scan.plugins else "Reinstall ccl."
    )
    for problem in scan.problems:
        yield Finding("plugin", "warning", problem, "Update or uninstall that package.")
    for plugin in strangers:
        try:
            registry.load(plugin)
        except Exception as error:
            yield Finding("plugin", "warning", _said(error), f"Update or uninstall {plugin.distribution}.")


def _surroundings() -> Iterator[Finding]:
    given = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    yield Finding("environment", "ok", ", ".join(given) or "nothing that concerns ccl")
    if variable := forbidden():
        advice = "Weights and models have to be here already; unset it to download."
        yield Finding("downloads", "ok", f"switched off by {variable}", advice)
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    advice = "" if encoding == "utf8" else "Names with other letters may be shown wrong: set PYTHONUTF8=1."
    encoding = f"{sys.stdout.encoding}, {'a terminal' if sys.stdout.isatty() else 'no terminal: plain lines'}"
    yield Finding("output", "warning" if advice else "ok", encoding, advice)


def _said(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "message", error)).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


_CHECKS: tuple[Check, ...] = (
    _versions,
    _processor,
    _gpus,
    _codecs,
    _folders,
    _memory,
    _limits,
    _plugins,
    _surroundings,
)
