"""The check of a data set: which videos have which problem, and the statistics of the readable ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ccl_cli.data.checks.findings import ABSENT, DECODE, DIGEST, INSPECT, Effort, Kind, examine
from ccl_cli.data.checks.inspect import Inspection, Subject
from ccl_cli.data.checks.pool import Failure
from ccl_cli.data.manifest import SPLITS, Manifest
from ccl_cli.data.video.storage import Packed
from ccl_cli.errors import DataError

# The first two break training.
BREAKING = ("missing", "corrupt")
PROBLEMS = (*BREAKING, "silent", "no track", "short", "duplicate")
COLUMNS = ("videos", "with sound", *PROBLEMS)
PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
# Attributes of an inspection, and their units.
MEASURES = {
    "seconds": "seconds",
    "frames": "frames",
    "rate": "frames/s",
    "width": "width",
    "height": "height",
}
_REASONS = {"silent": "no sample reaches 1e-4", "no track": "only a picture"}

Counts = dict[str, int]


@dataclass(frozen=True)
class Problem:
    """One problem of one video.

    Attributes:
        problem: One of ``PROBLEMS``.
        id: The video's.
        split: The video's.
        label: Name of its class.
        path: Its file.
        reason: Details.
    """

    problem: str
    id: str
    split: str
    label: str
    path: str
    reason: str


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        manifest: What was checked.
        inspections: Of the readable videos, by their index in the manifest.
        problems: Worst first, then in the manifest's order.
    """

    manifest: Manifest
    inspections: dict[int, Inspection]
    problems: tuple[Problem, ...]

    @property
    def broken(self) -> int:
        """How many videos break training."""
        return len({each.id for each in self.problems if each.problem in BREAKING})

    @cached_property
    def classes(self) -> dict[str, dict[str, Counts]]:
        """By split, class and one of ``COLUMNS``; classes without videos in a split are left out."""
        videos, names = self.manifest.videos, self.manifest.classes
        tally = Counter((video.split, names[video.label], "videos") for video in videos)
        audible = (videos[index] for index, each in self.inspections.items() if each.sound == "present")
        tally.update((video.split, names[video.label], "with sound") for video in audible)
        tally.update((each.split, each.label, each.problem) for each in self.problems)
        return {
            split: {
                name: {column: tally[split, name, column] for column in COLUMNS}
                for name in names
                if tally[split, name, "videos"]
            }
            for split in SPLITS
            if any(video.split == split for video in videos)
        }

    @cached_property
    def splits(self) -> dict[str, Counts]:
        """By split and one of ``COLUMNS``."""
        return {
            split: {column: sum(row[column] for row in rows.values()) for column in COLUMNS}
            for split, rows in self.classes.items()
        }

    @cached_property
    def sizes(self) -> Counter[tuple[int, int]]:
        """Readable videos by (width, height), pixels."""
        return Counter((each.width, each.height) for each in self.inspections.values())

    def values(self, split: str, measure: str) -> list[float]:
        """One of ``MEASURES``, for each readable video of a split."""
        videos = self.manifest.videos
        return [
            getattr(each, measure) for index, each in self.inspections.items() if videos[index].split == split
        ]

    def hours(self, split: str) -> float:
        """Length of all readable videos of a split."""
        return sum(self.values(split, "seconds")) / 3600

    def percentiles(self, split: str) -> dict[str, list[float]]:
        """Of each of ``MEASURES``, at ``PERCENTILES``; empty where no video can be read."""
        values = {measure: self.values(split, measure) for measure in MEASURES}
        return {
            measure: [round(value, 3) for value in np.percentile(each, PERCENTILES).tolist()]
            for measure, each in values.items()
            if each
        }

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return {
            "data": self.manifest.name,
            "hash": self.manifest.hash,
            "splits": {split: self._split_as_json(split) for split in self.splits},
            "sizes": {f"{width}x{height}": count for (width, height), count in self.sizes.most_common()},
            "problems": [asdict(each) for each in self.problems],
        }

    def _split_as_json(self, split: str) -> dict[str, Any]:
        percentiles = {
            measure: dict(zip(map(str, PERCENTILES), values, strict=True))
            for measure, values in self.percentiles(split).items()
        }
        return {
            "counts": self.splits[split],
            "hours": round(self.hours(split), 3),
            "classes": self.classes[split],
            "percentiles": percentiles,
        }


class _Fault(NamedTuple):
    """A problem of the video at an index of the manifest."""

    index: int
    problem: str
    reason: str


def check(manifest: Manifest, effort: Effort, *, frames: int, deep: bool = False) -> Report:
    """Inspect every video, decode all frames if ``deep``, and compare files of the same size.

    Args:
        manifest: What to check.
        effort: Resources.
        frames: Length of a clip; a shorter video repeats its frames.
        deep: Decode all frames and all sound, not only the index and the first sound.

    Raises:
        DataError: the videos are in shards.
        Interrupted: stopped by a signal; the same call goes on.
    """
    results = dict(examine(INSPECT, _subjects(manifest), effort))
    inspections = {
        index: result
        for index, result in sorted(results.items())
        if isinstance(result, Inspection) and not result.fault
    }
    faults = [_Fault(index, *fault) for index, result in results.items() for fault in _faults(result, frames)]
    if deep:
        whole = [index for index, each in inspections.items() if not each.damage]
        faults += _damaged(manifest, whole, effort)
    faults += _duplicates(manifest, effort)
    faults.sort(key=lambda fault: (PROBLEMS.index(fault.problem), fault.index))
    return Report(manifest, inspections, tuple(_problem(manifest, fault) for fault in faults))


def _subjects(manifest: Manifest) -> list[Subject]:
    if any(isinstance(video.path, Packed) for video in manifest.videos):
        raise DataError(
            f"'{manifest.name}' is packed: its videos were inspected when that was done.",
            "Name the data set that it was packed from.",
        )
    return [Subject(str(video.path), video.start, video.end) for video in manifest.videos]


def _faults(result: Inspection | Failure, frames: int) -> Iterator[tuple[str, str]]:
    if isinstance(result, Failure):
        yield "missing" if result is ABSENT else "corrupt", result.reason
    elif result.fault:
        yield "corrupt", result.fault
    else:
        if result.damage:
            yield "corrupt", result.damage
        if result.sound != "present":
            yield result.sound, _REASONS[result.sound]
        if result.frames < frames:
            yield "short", f"{result.frames} frames, a clip has {frames}"


def _damaged(manifest: Manifest, indices: Iterable[int], effort: Effort) -> Iterator[_Fault]:
    """Videos in files that cannot be decoded to the end."""
    by_path: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        by_path[str(manifest.videos[index].path)].append(index)
    for path, result in _examine_files(DECODE, list(by_path), effort):
        damage = result.reason if isinstance(result, Failure) else result
        if damage:
            yield from (_Fault(index, "corrupt", damage) for index in by_path[path])


def _duplicates(manifest: Manifest, effort: Effort) -> Iterator[_Fault]:
    """Videos in files with the same bytes as one further up the list."""
    by_path: dict[str, list[int]] = defaultdict(list)
    by_size: dict[int, list[str]] = defaultdict(list)
    for index, (video, size) in enumerate(zip(manifest.videos, manifest.sizes, strict=True)):
        path = str(video.path)
        if size and path not in by_path:
            by_size[size].append(path)
        by_path[path].append(index)
    candidates = [path for paths in by_size.values() if len(paths) > 1 for path in paths]
    by_digest: dict[str, list[str]] = defaultdict(list)
    for path, digest in _examine_files(DIGEST, candidates, effort):
        if not isinstance(digest, Failure):
            by_digest[digest].append(path)
    for paths in by_digest.values():
        first, *others = sorted(paths, key=lambda path: by_path[path][0])
        original = manifest.videos[by_path[first][0]]
        reason = f"same bytes as '{original.id}' ({original.split}, {manifest.classes[original.label]})"
        yield from (_Fault(index, "duplicate", reason) for path in others for index in by_path[path])


def _examine_files(kind: Kind, paths: Sequence[str], effort: Effort) -> Iterator[tuple[str, Any]]:
    for index, result in examine(kind, [Subject(path) for path in paths], effort):
        yield paths[index], result


def _problem(manifest: Manifest, fault: _Fault) -> Problem:
    video = manifest.videos[fault.index]
    label = manifest.classes[video.label]
    return Problem(fault.problem, video.id, video.split, label, str(video.path), fault.reason)
