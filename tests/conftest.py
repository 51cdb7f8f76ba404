from __future__ import annotations

import gc
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from ccl_cli.utils import console

# Several tests run at once, and some start processes: with a thread for each core they would fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says nothing on a machine that is shared; what passes today passes tomorrow.
settings.register_profile("ccl", deadline=None, derandomize=True)
settings.load_profile("ccl")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark long tests as slow too, so that ``-m "not slow"`` deselects both."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")


def pytest_sessionstart() -> None:
    """Collecting the tests imports everything; searching that for garbage again and again finds none."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again, but not among what has been imported: that takes half a second each time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference values and real clips kept beside the project; not part of it."""
    if not SHARED.is_dir():
        pytest.skip("the folder with reference values and real clips is not beside the project")
    return SHARED


@pytest.fixture
def slurm(shared, tmp_path, monkeypatch) -> Iterator[Path]:
    """Slurm's commands on this machine; yields the folder of their state. What still runs at the end is ended."""
    commands, state = shared / "slurm_stub", tmp_path / "slurm"
    if not commands.is_dir():
        pytest.skip("there is no imitation of Slurm beside the project")
    monkeypatch.setenv("PATH", f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STUB_DIR", str(state))
    monkeypatch.setenv("SLURM_STUB_PYTHON", sys.executable)
    monkeypatch.setenv("SLURM_STUB_GRACE", "5")
    yield state
    monkeypatch.delenv("SLURM_STUB_FAIL", raising=False)
    subprocess.run(["scancel", "--me"], check=True)
    while subprocess.run(["squeue", "-h"], check=True, capture_output=True).stdout:
        time.sleep(0.05)


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Tests that configure the logger leave no handlers to the tests after them."""
    yield
    console._verbosity = console._Verbosity()
    logger = logging.getLogger("ccl")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session", autouse=True)
def _nothing_waits_for_the_disk() -> Iterator[None]:
    """Tests kill processes, not the machine: what they write need not be on the disk before they go on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """No test reads or writes the user's cache, data or runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CCL_HOME", str(tmp_path / "cache"))
    for name in ("CCL_DATA", "CCL_RUNS", "CCL_RECIPE"):
        monkeypatch.delenv(name, raising=False)


def close_folder(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """Refuse to list folders whose path ends so: whoever runs the tests may be allowed everything."""
    real = os.scandir

    def scandir(path):
        if str(path).endswith(end):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def moving_stripes(rng: np.random.Generator, label: int, frames: int = 20, size: int = 48) -> np.ndarray:
    """[T, H, W, 3] uint8: stripes that move right (0) or down (1)."""
    grid = np.arange(size)
    speed, phase = rng.uniform(1, 3), rng.uniform(0, 9)
    waves = np.stack([np.sin((grid + speed * t + phase) / 3) for t in range(frames)])  # [T, size]
    plane = waves[:, None, :] if label == 0 else waves[:, :, None]
    plane = np.broadcast_to(plane, (frames, size, size))
    noise = rng.normal(0, 10, (frames, size, size, 3))
    return np.clip(127 + 90 * plane[..., None] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory) -> Path:
    """Two classes, 6 training and 3 test videos each, real mp4 files; one silent, one without a track per class.

    Beside them ``audio.npz`` and ``image.npz`` hold embeddings of two widths for ``precomputed`` teachers; the
    clips without sound have none of audio.
    """
    from ccl_cli.data.video.video_writer import write_clip

    root = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    tables: dict[str, dict[str, np.ndarray]] = {"audio": {}, "image": {}}
    for split, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("right", "down")):
            for number in range(count):
                key = f"{split}/{name}/{number}"
                tone = np.sin(np.arange(32000) * (0.02 + 0.03 * label)).astype(np.float32) / 2
                sound = {0: None, 1: 0 * tone}.get(number, tone) if split == "train" else tone
                write_clip(root / "set" / f"{key}.mp4", moving_stripes(rng, label), 25, sound)
                tables["image"][key] = rng.random(12, dtype=np.float32) + label
                if not (split == "train" and number < 2):
                    tables["audio"][key] = rng.random(8, dtype=np.float32) + label
    for modality, table in tables.items():
        np.savez(root / f"{modality}.npz", names=list(table), embedding=np.stack(list(table.values())))
    return root


@pytest.fixture(scope="session")
def untrained_run(clips_folder, tmp_path_factory) -> Path:
    """A run on the clips; its student is not trained, but tells videos apart."""
    from tests.helpers.models import write_run

    return write_run(tmp_path_factory.mktemp("untrained") / "run", clips_folder / "set")


@pytest.fixture
def run(untrained_run, tmp_path) -> Path:
    """A copy of it, the newest run."""
    return shutil.copytree(untrained_run, tmp_path / "runs" / "mine" / "a")
