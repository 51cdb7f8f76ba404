"""Small recipes on the clips, and what their runs write."""

from __future__ import annotations

import json

from ccl_cli.config.recipe import Recipe

_BASE = {
    "name": "test",
    "student": "r2plus1d_tiny",
    "clip": {"frames": 8, "size": 16, "short_side": 48},
    "optim": {"lr": 0.01},
    "train": {"epochs": 3, "batch_size": 6, "workers": 0, "log_every": 1},
}


def small_recipe(data: str, *layers: dict) -> Recipe:
    """A recipe of a tiny student, with six steps on the clips; later layers win, entry by entry."""
    values = {**_BASE, "data": data}
    for layer in layers:
        for key, value in layer.items():
            values[key] = {**values[key], **value} if isinstance(values.get(key), dict) else value
    return Recipe.model_validate(values)


def recipe(clips_folder, **changes) -> Recipe:
    """The clips with two teachers that are tables."""
    names = [f"{kind}:precomputed@{clips_folder / kind}.npz" for kind in ("audio", "image")]
    return small_recipe(f"folder:{clips_folder / 'set'}", {"teachers": names}, changes)


def lines(run) -> list[dict]:
    """Lines of a run's metrics, without those figures that depend on the machine."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: entry[key] for key in entry.keys() - {"clips_per_s", "data_wait"}} for entry in entries]


def summary(run) -> dict:
    """The record of a run."""
    return json.loads((run / "summary.json").read_text())
