"""Run folders as `ccl train`, `ccl eval` and `ccl bench` leave them, with figures of one's own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from ccl_cli.config.load import to_yaml
from ccl_cli.config.recipe import Recipe
from ccl_cli.executors.work import ERROR
from ccl_cli.training.run.folder import CELL, RECIPE, SUMMARY

TEACHERS = {"A": ["audio:cnn14"], "I": ["image:resnet34"], "AI": ["audio:cnn14", "image:resnet34"], "": []}
_clock = count(1)


def write_run(
    folder: Path,
    method: Any = "ccl",
    setup: str = "AI",
    seed: int = 0,
    *,
    top1: float | None = None,
    retrieval: Sequence[float] | None = None,
    data: str = "ucf51-split1",
    split: str = "test",
    manifest: str = "f" * 16,
    changed: Mapping[str, Mapping[str, Any]] | None = None,
    finished: bool = True,
    name: str = "mine",
    train: Mapping[str, Any] | None = None,
    teachers: Sequence[str] | None = None,
    **rest: Any,
) -> Path:
    """A run made by hand; `changed`: the options that differ from the defaults, None as older runs leave it."""
    recipe = Recipe(
        name=name,
        data="clips",
        teachers=TEACHERS[setup] if teachers is None else teachers,
        method=method,
        train={**(train or {}), "seed": seed},
        **rest,
    )
    folder.mkdir(parents=True)
    (folder / RECIPE).write_text(to_yaml(recipe))
    tasks: dict[str, dict[str, float]] = {}
    if top1 is not None:
        tasks["recognition"] = {"top1": top1, "top5": min(100.0, top1 + 20), "mean_class": top1 - 1}
    if retrieval is not None:
        tasks["retrieval"] = dict(zip(("r1", "r5", "r10", "map"), [*retrieval, 10.0], strict=True))
    summary = {
        "recipe": recipe.hash(),
        "method": recipe.method_label,
        "seed": seed,
        "steps": 10,
        "seconds": 1.5,
        "finished": finished,
        "data": {"name": data, "manifest": manifest},
        "teachers": {text: {"dim": 512} for text in recipe.teachers},
        "evaluation": {f"{data}-{split}": tasks} if tasks else {},
    }
    if changed is not None:
        summary["options"] = changed
    (folder / SUMMARY).write_text(json.dumps(summary))
    moment = 1_700_000_000 + next(_clock)  # later runs are newer, however fast they are written
    os.utime(folder / SUMMARY, (moment, moment))
    return folder


def write_cell(
    root: Path,
    label: str = "ccl",
    setup: str = "AI",
    seed: int = 0,
    *,
    table: str = "main",
    phase: str = "final",
    **run: Any,
) -> Path:
    """A benchmark's run."""
    name = f"{phase}-{label.replace('/', '')}-{setup}-s{seed}".replace(" ", "-")
    folder = write_run(root / name, run.pop("method", label.split()[0]), setup, seed, **run)
    mark(folder, label, setup, seed, table, phase)
    return folder


def write_failed(root: Path, label: str, setup: str, seed: int) -> Path:
    """A benchmark's run that failed before it wrote its recipe."""
    folder = root / f"failed-{label}-{setup}-s{seed}"
    folder.mkdir(parents=True)
    mark(folder, label, setup, seed, "main", "final")
    (folder / ERROR).write_text(json.dumps({"message": "The loss is not finite.", "hint": None}))
    return folder


def mark(folder: Path, label: str, setup: str, seed: int, table: str, phase: str) -> None:
    """What `ccl bench` writes beside a run."""
    place = {"method": label, "setup": setup, "seed": seed, "table": table, "phase": phase}
    (folder / CELL).write_text(json.dumps({"bench": folder.parent.name, **place}))


def write_bench(root: Path) -> Path:
    """Four methods in three setups over three seeds, one of which failed, and two ablations."""
    ablations = {"ccl w/o composition": {"composition": False}, "ccl w L_ct": {"contrast": "infonce"}}
    for seed in range(3):
        write_cell(root, "baseline", "", seed, top1=57.0 + seed, retrieval=(57.0, 65.0 + seed, 68.9))
        for place, setup in enumerate(("A", "I", "AI")):
            for rank, label in enumerate(("fitnet", "cckd", "ccl")):
                base = 58.0 + 3 * rank + 1.5 * place
                if (label, setup, seed) == ("cckd", "A", 2):
                    write_failed(root, label, setup, seed)
                    continue
                figures = {"top1": base + 0.5 * seed, "retrieval": (base - 1, base + 5, base + 9 + seed / 4)}
                write_cell(
                    root, label, setup, seed, method="ccl" if label == "ccl" else "baseline", **figures
                )
            for label, options in ablations.items():
                figures = {"top1": 61.0 + place + 0.25 * seed, "retrieval": (60.0, 65.0, 70.0)}
                write_cell(root, label, setup, seed, table="ablation", method={"ccl": options}, **figures)
    for setup in ("A", "I", "AI"):
        write_failed(root, "rkd", setup, 0)
    write_cell(root, "ccl", "AI", 0, phase="tune", top1=99.0, split="val")
    return root
