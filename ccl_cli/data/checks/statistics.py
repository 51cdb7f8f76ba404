"""How many, how long, how large and how loud the videos of a data set are."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ccl_cli.data.checks.crash_proof import Lost
from ccl_cli.data.checks.findings import ABSENT, LOOK, Effort, examine
from ccl_cli.data.checks.inspect import Finding
from ccl_cli.data.checks.prepare import SOUND, subjects
from ccl_cli.data.manifest import SPLITS, Manifest

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
STATES = ("with sound", "silent", "no track", "unreadable", "missing")
# Of a video, and how it is shown.
MEASURES = {
    "seconds": "seconds",
    "frames": "frames",
    "rate": "frames/s",
    "width": "width",
    "height": "height",
}


@dataclass
class Statistics:
    """What was counted and measured.

    Attributes:
        manifest: What was looked at.
        states: Videos by split, label and one of ``STATES``.
        sizes: Videos by (width, height) in pixels.
        values: Of every readable video, by split and one of ``MEASURES``.
    """

    manifest: Manifest
    states: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    values: dict[tuple[str, str], array[float]] = field(
        default_factory=lambda: defaultdict(lambda: array("d"))
    )

    def of_split(self, split: str) -> dict[str, int]:
        """Videos of a split by state, in all of its classes."""
        labels = range(len(self.manifest.classes))
        return {state: sum(self.states[split, label, state] for label in labels) for state in STATES}

    def of_class(self, split: str, label: int) -> dict[str, int]:
        """Videos of a class by state."""
        return {state: self.states[split, label, state] for state in STATES}

    def percentiles(self, split: str) -> dict[str, list[float]]:
        """Of each of ``MEASURES``, at ``PERCENTILES``; nothing where no video can be read."""
        found = {name: self.values[split, name] for name in MEASURES if self.values[split, name]}
        return {
            name: [round(float(at), 3) for at in np.percentile(np.frombuffer(values), PERCENTILES)]
            for name, values in found.items()
        }

    def splits(self) -> list[str]:
        """Those that hold videos."""
        filled = {video.split for video in self.manifest.videos}
        return [split for split in SPLITS if split in filled]

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        names = self.manifest.classes
        return {
            "data": self.manifest.name,
            "hash": self.manifest.hash,
            "splits": {
                split: {
                    "states": self.of_split(split),
                    "hours": round(sum(self.values[split, "seconds"]) / 3600, 3),
                    "classes": {name: self.of_class(split, label) for label, name in enumerate(names)},
                    "percentiles": {
                        name: dict(zip(map(str, PERCENTILES), at, strict=True))
                        for name, at in self.percentiles(split).items()
                    },
                }
                for split in self.splits()
            },
            "sizes": {f"{width}x{height}": n for (width, height), n in self.sizes.most_common()},
        }


def measure(manifest: Manifest, effort: Effort) -> Statistics:
    """Look at every video.

    Raises:
        Interrupted: stopped by a signal; the same call goes on.
    """
    statistics = Statistics(manifest)
    for place, found in examine(LOOK, subjects(manifest), effort):
        video = manifest.videos[place]
        statistics.states[video.split, video.label, _state(found)] += 1
        if isinstance(found, Finding) and not found.fault:
            statistics.sizes[found.width, found.height] += 1
            for name in MEASURES:
                statistics.values[video.split, name].append(getattr(found, name))
    return statistics


def _state(found: Finding | Lost) -> str:
    if found is ABSENT:
        return "missing"
    return "unreadable" if isinstance(found, Lost) or found.fault else SOUND[found.sound]
