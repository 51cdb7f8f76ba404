"""The check of a data set: problems of its videos, and statistics of the readable ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ccl_cli.data.checks.findings import NO_FILE, Effort, examine
from ccl_cli.data.checks.inspect import Inspection, Subject, decode, digest, inspect
from ccl_cli.data.checks.pool import Failure
from ccl_cli.data.manifest import SPLITS, Manifest, Video
from ccl_cli.errors import DataError

BREAKING = ("missing", "corrupt")  # problems that exclude a video from training
PROBLEMS = (*BREAKING, "silent", "no track", "short", "duplicate")
COLUMNS = ("videos", "with sound", *PROBLEMS)
PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
MEASURES = ("seconds", "frames", "rate", "width", "height")  # attributes of an inspection
NO_LABEL = "no label"
_REASONS = {"silent": "no sample reaches 1e-4", "no track": "only a picture"}

Counts = dict[str, int]
Faults = Iterator[tuple[int, str, str]]  # index of a video in the manifest, problem, reason


@dataclass(frozen=True)
class Problem:
    """One problem, one of ``PROBLEMS``, of one video. Its label is the name of its class, or "no label"."""

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
        manifest: The checked data set.
        inspections: Inspections of the readable videos, by index in the manifest.
        problems: Problems, the worst first, then in the order of the manifest.
    """

    manifest: Manifest
    inspections: dict[int, Inspection]
    problems: tuple[Problem, ...]

    @property
    def broken(self) -> int:
        """Number of videos that are excluded from training."""
        return len({each.id for each in self.problems if each.problem in BREAKING})

    @cached_property
    def classes(self) -> dict[str, dict[str, Counts]]:
        """Counts by split, class and one of ``COLUMNS``, without classes that have no videos in a split.

        Videos without a label come last, as a class of their own.
        """
        tally = Counter((each.split, each.label, each.problem) for each in self.problems)
        for index, video in enumerate(self.manifest.videos):
            name = _class_name(self.manifest, video)
            tally[video.split, name, "videos"] += 1
            inspection = self.inspections.get(index)
            tally[video.split, name, "with sound"] += bool(inspection and inspection.sound == "present")
        counts = {
            split: {
                name: {column: tally[split, name, column] for column in COLUMNS}
                for name in (*self.manifest.classes, NO_LABEL)
                if tally[split, name, "videos"]
            }
            for split in SPLITS
        }
        return {split: rows for split, rows in counts.items() if rows}

    @cached_property
    def splits(self) -> dict[str, Counts]:
        """Counts by split and one of ``COLUMNS``."""
        return {
            split: {column: sum(row[column] for row in rows.values()) for column in COLUMNS}
            for split, rows in self.classes.items()
        }

    @cached_property
    def sizes(self) -> Counter[tuple[int, int]]:
        """Number of readable videos by (width, height) in pixels."""
        return Counter((each.width, each.height) for each in self.inspections.values())

    def hours(self, split: str) -> float:
        """Total duration of the readable videos of a split."""
        return sum(each.seconds for each in self._of(split)) / 3600

    def percentiles(self, split: str) -> dict[str, dict[int, float]]:
        """Percentiles of each of ``MEASURES``, by percent; empty without readable videos."""
        of_split = self._of(split)
        values = {name: [getattr(each, name) for each in of_split] for name in MEASURES if of_split}
        return {
            name: dict(zip(PERCENTILES, np.percentile(each, PERCENTILES).round(3).tolist(), strict=True))
            for name, each in values.items()
        }

    def _of(self, split: str) -> list[Inspection]:
        inside = self.manifest.videos.in_split(split)
        return [each for index, each in self.inspections.items() if inside[index]]

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "data": self.manifest.name,
            "hash": self.manifest.hash,
            "splits": {
                split: {
                    "counts": counts,
                    "hours": round(self.hours(split), 3),
                    "classes": self.classes[split],
                    "percentiles": self.percentiles(split),
                }
                for split, counts in self.splits.items()
            },
            "sizes": {f"{width}x{height}": count for (width, height), count in self.sizes.most_common()},
            "problems": [asdict(each) for each in self.problems],
        }


def check(manifest: Manifest, effort: Effort, *, frames: int, deep: bool = False) -> Report:
    """Inspect every video, and compare files of the same size.

    Args:
        manifest: Data set; its videos are not in shards.
        effort: Resources.
        frames: Length of a clip; shorter videos are reported.
        deep: Whether to decode all frames and all sound, and not only the metadata and the first sound.
    """
    if manifest.videos.packed:
        raise DataError(
            f"'{manifest.name}' is packed: its videos were inspected when that was done.",
            "Name the data set that it was packed from.",
        )
    subjects = [Subject(str(video.path), video.start, video.end) for video in manifest.videos]
    inspections: dict[int, Inspection] = {}
    faults: list[tuple[int, str, str]] = []
    for index, result in examine(inspect, subjects, effort):
        inspection = Inspection(result.reason) if isinstance(result, Failure) else Inspection(*result)
        if inspection.fault:
            faults.append((index, "missing" if result is NO_FILE else "corrupt", inspection.fault))
        else:
            inspections[index] = inspection
            faults += _shortcomings(index, inspection, frames)
    if deep:
        whole = {index: subjects[index].path for index, each in inspections.items() if not each.damage}
        faults += _damaged(whole, effort)
    faults += _duplicates(manifest, effort)
    faults.sort(key=lambda fault: (PROBLEMS.index(fault[1]), fault[0]))
    return Report(manifest, inspections, tuple(_problem(manifest, *fault) for fault in faults))


def _shortcomings(index: int, inspection: Inspection, frames: int) -> Faults:
    if inspection.damage:
        yield index, "corrupt", inspection.damage
    if inspection.sound != "present":
        yield index, inspection.sound, _REASONS[inspection.sound]
    if inspection.frames < frames:
        yield index, "short", f"{inspection.frames} frames, a clip has {frames}"


def _damaged(paths: dict[int, str], effort: Effort) -> Faults:
    """Find files that cannot be decoded to the end."""
    results = _examine_files(decode, paths.values(), effort)
    for index, path in paths.items():
        result = results[path]
        if damage := result.reason if isinstance(result, Failure) else result:
            yield index, "corrupt", damage


def _duplicates(manifest: Manifest, effort: Effort) -> Faults:
    """Find files with the same bytes as an earlier one in the list."""
    paths = [str(video.path) for video in manifest.videos]
    size_of = dict(zip(paths, manifest.sizes.tolist(), strict=True))
    counts = Counter(size_of.values())
    candidates = [path for path, size in size_of.items() if size > 0 and counts[size] > 1]
    digests = _examine_files(digest, candidates, effort)
    first: dict[str, int] = {}
    for index, path in enumerate(paths):
        if path not in digests or isinstance(digests[path], Failure):
            continue
        original = first.setdefault(digests[path], index)
        if paths[original] != path:
            video = manifest.videos[original]
            label = _class_name(manifest, video)
            yield index, "duplicate", f"same bytes as '{video.id}' ({video.split}, {label})"


def _examine_files(work: Callable[[Subject], Any], paths: Iterable[str], effort: Effort) -> dict[str, Any]:
    """Examine each file once; return results by path."""
    unique = list(dict.fromkeys(paths))
    results = examine(work, [Subject(path) for path in unique], effort)
    return {unique[index]: result for index, result in results}


def _class_name(manifest: Manifest, video: Video) -> str:
    return manifest.class_name(video) or NO_LABEL


def _problem(manifest: Manifest, index: int, problem: str, reason: str) -> Problem:
    video = manifest.videos[index]
    label = _class_name(manifest, video)
    return Problem(problem, video.id, video.split, label, str(video.path), reason)
