"""Run folders: ``runs/<name>/<time>-<hash>/`` with recipe, metrics, model, summary and state."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccl_cli import __version__
from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import DataError, UsageError
from ccl_cli.executors.work import ERROR, LOG
from ccl_cli.utils import json_text
from ccl_cli.utils.files import write_text
from ccl_cli.utils.json_text import Shape, fitting
from ccl_cli.utils.paths import runs_dir

MODEL, RAW_MODEL, SUMMARY, METRICS, RECIPE, MANIFEST = (
    "model.safetensors",
    "model-raw.safetensors",
    "summary.json",
    "metrics.jsonl",
    "recipe.yaml",
    "manifest.jsonl",
)
MAPPED_MANIFEST = "manifest.arrow"  # instead of manifest.jsonl, for a long list
SAMPLES, TRACKERS = "samples.png", "trackers.json"
CELL = "cell.json"  # in a run of a benchmark: its place in the tables
# Types of entries that readers rely on. An entry of another type counts as missing.
_SHAPES: dict[str, dict[str, Shape]] = {
    SUMMARY: {
        "finished": bool,
        "seed": int,
        "steps": int,
        "seconds": float,
        "options": {"*": {}},
        "data": {"missing": [str], "unreadable": {}, "modalities": {"*": {"*": int}}},
        "teachers": {"*": {}},
        "versions": {},
        "evaluation": {"*": {"*": {}}},
    },
    CELL: {"method": str, "setup": str, "table": str, "phase": str, "seed": int},
    ERROR: {"message": str},
    TRACKERS: {"*": {"*": str}},
}
_EVALUATION: dict[str, Shape] = {
    "data": {},
    "counts": {"*": {"unreadable": {}}},
    "recognition": {"per_class": {"*": {"top1": float, "videos": int}}},
    "retrieval": {},
    "probe": {},
}


def manifest_path(folder: Path) -> Path:
    """File of a run's manifest, in the form that exists."""
    mapped = folder / MAPPED_MANIFEST
    return mapped if mapped.is_file() else folder / MANIFEST


@dataclass(frozen=True)
class RunFolder:
    """Files of one run."""

    path: Path

    @classmethod
    def new(cls, recipe: Recipe) -> RunFolder:
        """A folder named after recipe and time, which is not created yet."""
        path = runs_dir() / recipe.name / f"{time.strftime('%Y%m%d-%H%M%S')}-{recipe.hash()}"
        if path.exists():  # two runs of one recipe within a second
            path = path.with_name(f"{path.name}-{time.time_ns() % 1_000_000}")
        return cls(path)

    def refuse_used(self) -> None:
        """Raise a UsageError if the folder contains a run or files of the user."""
        if self.path.exists() and (not self.path.is_dir() or any(map(_marks_used, self.path.iterdir()))):
            raise UsageError(
                f"'{self.path}' is not empty.",
                f"Continue it with --resume {self.path}, or name another folder.",
            )

    @property
    def model(self) -> Path:
        """File of the published student."""
        return self.path / MODEL

    @property
    def raw_model(self) -> Path:
        """File of the raw weights; exists only if the published weights are a moving average."""
        return self.path / RAW_MODEL

    def model_with(self, weights: str) -> Path:
        """File with the weights "ema" or "raw". Raises a UsageError if the run has no moving average."""
        averaged = self.raw_model.is_file()
        if weights == "ema" and not averaged:
            raise UsageError(
                f"'{self.path}' has no moving average of its weights.",
                "Train with one: --set train.ema=0.999.",
            )
        return self.raw_model if weights == "raw" and averaged else self.model

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "state"

    @property
    def summary(self) -> dict[str, Any]:
        """Contents of ``summary.json``; empty before the first end of training."""
        return read_json(self.path / SUMMARY)

    @property
    def finished(self) -> bool:
        """Whether training has reached its last step."""
        return bool(self.summary.get("finished"))

    def update_summary(self, entries: Mapping[str, Any]) -> None:
        """Merge entries into ``summary.json``."""
        write_text(self.path / SUMMARY, json.dumps({**self.summary, **entries}, indent=2) + "\n")

    def metrics(self) -> list[tuple[int, str]]:
        """Lines of ``metrics.jsonl`` with their steps, without the incomplete line of a killed process."""
        path = self.path / METRICS
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return [(step, line) for line in text.splitlines() if (step := _step_of(line)) is not None]

    def truncate_metrics(self, step: int) -> None:
        """Remove lines after ``step``, which a resumed run writes again."""
        if (self.path / METRICS).exists():
            lines = [line + "\n" for at, line in self.metrics() if at <= step]
            write_text(self.path / METRICS, "".join(lines))


def find_run(name: Path | None) -> RunFolder:
    """The named run folder, or the newest one with a model. Raises a DataError if there is none."""
    if name is not None:
        if not (name / RECIPE).is_file():
            raise DataError(f"'{name}' is not a run folder.", f"The runs are under '{runs_dir()}'.")
        return RunFolder(name)
    runs = [run for run in all_runs() if run.model.is_file()]
    if not runs:
        raise DataError(
            f"There is no finished run under '{runs_dir()}'.",
            "Train one with `ccl train`, or name a run's folder elsewhere.",
        )
    return max(runs, key=lambda run: run.model.stat().st_mtime_ns)


def locate_model(run: str | Path | None) -> tuple[RunFolder | None, Path]:
    """Find a run, or the newest one with a model, and its model file. A model file has no run.

    Raises a DataError if there is no such run, or it has no model.
    """
    run = None if run is None else Path(run)
    if run is not None and run.is_file():
        return None, run
    folder = find_run(run)
    if not folder.model.is_file():
        raise DataError(
            f"'{folder.path}' holds no model yet.", f"Finish it with `ccl train --resume {folder.path}`."
        )
    return folder, folder.model


def split_run(paths: Sequence[Path], *, optional: bool = False) -> tuple[Path | None, list[Path]]:
    """Separate the run (None: the newest) in the arguments of a command from the videos after it.

    Raises a UsageError if there are no videos, unless they are optional.
    """
    run, videos = None, list(paths)
    if videos and (videos[0].suffix == Path(MODEL).suffix or (videos[0] / RECIPE).is_file()):
        run = videos.pop(0)
    if not videos and not optional:
        raise UsageError("No videos are named.", "Name files, or folders of them.")
    return run, videos


def all_runs() -> Iterator[RunFolder]:
    """All run folders, unsorted."""
    return map(RunFolder, run_paths(RECIPE))


def run_paths(file: str) -> Iterator[Path]:
    """All run folders with a file: ``runs/NAME/TIME-HASH``, or ``runs/NAME`` of a run with --output."""
    root = runs_dir()
    return (path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/{file}"))


def versions() -> dict[str, str]:
    """Versions of software that results depend on."""
    from importlib.metadata import version

    packages = ("torch", "torchvision", "torchaudio", "timm", "pytorchvideo", "accelerate", "av")
    return {
        "ccl": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "platform": f"{sys.platform} {platform.machine()}",
    }


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if the file is missing or damaged.

    In the records of a run, entries of another type than readers rely on are dropped.
    """
    try:
        value = json_text.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return fitting(value, _EVALUATION if path.name.startswith("eval-") else _SHAPES.get(path.name, {}))


def _marks_used(file: Path) -> bool:
    """Whether a file marks its folder as used: not a file of a benchmark or a temporary file."""
    left_over = file.match(".*.tmp") or file.name == ".lock"
    return not left_over and file.name not in (CELL, ERROR, LOG)


def _step_of(line: str) -> int | None:
    try:
        return int(json_text.parse(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
