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
MAPPED_MANIFEST = "manifest.arrow"  # in place of the other, if the list is long
SAMPLES, TRACKERS = "samples.png", "trackers.json"
CELL = "cell.json"  # beside a run that belongs to a benchmark: its place in the tables
# What readers of a record count on; an entry of another kind counts as absent.
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
    """The list of a run's videos, in whichever of its two forms is there."""
    mapped = folder / MAPPED_MANIFEST
    return mapped if mapped.is_file() else folder / MANIFEST


@dataclass(frozen=True)
class RunFolder:
    """One run's files."""

    path: Path

    @classmethod
    def new(cls, recipe: Recipe) -> RunFolder:
        """Named after the recipe and the time; not made yet."""
        path = runs_dir() / recipe.name / f"{time.strftime('%Y%m%d-%H%M%S')}-{recipe.hash()}"
        if path.exists():  # two runs of one recipe within a second
            path = path.with_name(f"{path.name}-{time.time_ns() % 1_000_000}")
        return cls(path)

    def refuse_used(self) -> None:
        """See that there is no run and nothing of the user's.

        Raises:
            UsageError: there is.
        """
        if self.path.exists() and (not self.path.is_dir() or any(map(_marks_used, self.path.iterdir()))):
            raise UsageError(
                f"'{self.path}' is not empty.",
                f"Continue it with --resume {self.path}, or name another folder.",
            )

    @property
    def model(self) -> Path:
        """The published student."""
        return self.path / MODEL

    @property
    def raw_model(self) -> Path:
        """The weights that a published moving average follows; there only beside one."""
        return self.path / RAW_MODEL

    def model_with(self, weights: str) -> Path:
        """The file that holds these weights: "ema" or "raw".

        Raises:
            UsageError: the run has no moving average.
        """
        averaged = self.raw_model.is_file()
        if weights == "ema" and not averaged:
            raise UsageError(
                f"'{self.path}' has no moving average of its weights.",
                "Train with one: --set train.ema=0.999.",
            )
        return self.raw_model if weights == "raw" and averaged else self.model

    @property
    def state(self) -> Path:
        """Checkpoints, needed only to resume."""
        return self.path / "state"

    @property
    def summary(self) -> dict[str, Any]:
        """What the run recorded; empty until it has finished once."""
        return read_json(self.path / SUMMARY)

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return bool(self.summary.get("finished"))

    def update_summary(self, entries: Mapping[str, Any]) -> None:
        """Merge entries into ``summary.json``."""
        write_text(self.path / SUMMARY, json.dumps({**self.summary, **entries}, indent=2) + "\n")

    def last_logged(self) -> dict[bool, int]:
        """The last step in ``metrics.jsonl`` of training (True) and of a held-out score (False); -1: none."""
        path, last = self.path / METRICS, {True: -1, False: -1}
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        for line in lines:
            if (step := _step_of(line)) < sys.maxsize:
                last['"loss"' in line] = step
        return last

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines a resumed run is going to write again."""
        path = self.path / METRICS
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            lines = [line for line in text.splitlines() if _step_of(line) <= step]
            write_text(path, "".join(line + "\n" for line in lines))


def find_run(name: Path | None) -> RunFolder:
    """The named run folder, or the newest one that holds a model.

    Raises:
        DataError: there is none.
    """
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
    """A run and its model; a model file belongs to no run.

    Args:
        run: A run folder, a model file, or None for the newest run that holds a model.

    Raises:
        DataError: there is no such run, or it holds no model.
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
    """Tell the run that a command names first from the videos after it.

    Args:
        paths: A run folder or a model file, if one is named, then videos.
        optional: Whether there may be no videos.

    Returns:
        The run, None for the newest, and the videos.

    Raises:
        UsageError: no videos are named.
    """
    run, videos = None, list(paths)
    if videos and (videos[0].suffix == Path(MODEL).suffix or (videos[0] / RECIPE).is_file()):
        run = videos.pop(0)
    if not videos and not optional:
        raise UsageError("No videos are named.", "Name files, or folders of them.")
    return run, videos


def all_runs() -> Iterator[RunFolder]:
    """Every run folder, in no order."""
    return map(RunFolder, run_paths(RECIPE))


def run_paths(file: str) -> Iterator[Path]:
    """Every run folder that has a file: ``runs/NAME/TIME-HASH``, or ``runs/NAME`` as of --output."""
    root = runs_dir()
    return (path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/{file}"))


def versions() -> dict[str, str]:
    """What a result depends on besides the recipe."""
    from importlib.metadata import version

    packages = ("torch", "torchvision", "torchaudio", "timm", "pytorchvideo", "accelerate", "av")
    return {
        "ccl": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "platform": f"{sys.platform} {platform.machine()}",
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one when the file is absent or damaged.

    Of the records that a run leaves, an entry is absent too if it is not of the kind that readers count on.
    """
    try:
        value = json_text.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return fitting(value, _EVALUATION if path.name.startswith("eval-") else _SHAPES.get(path.name, {}))


def _marks_used(file: Path) -> bool:
    """Whether a file makes its folder a used one: not a benchmark's, nor what a kill leaves of a write."""
    left_over = file.match(".*.tmp") or file.name == ".lock"
    return not left_over and file.name not in (CELL, ERROR, LOG)


def _step_of(line: str) -> int:
    try:
        return int(json_text.parse(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return sys.maxsize  # a line cut off by a kill
