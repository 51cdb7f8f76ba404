"""What is wrong with the videos of a data set, each with a reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ccl_cli.data.checks.crash_proof import Lost
from ccl_cli.data.checks.findings import ABSENT, DECODE, DIGEST, LOOK, Effort, Kind, examine
from ccl_cli.data.checks.inspect import Finding, Subject
from ccl_cli.data.checks.prepare import subjects
from ccl_cli.data.manifest import Manifest

# What breaks training, then what is worth knowing.
BREAKING = ("missing", "corrupt")
PROBLEMS = (*BREAKING, "silent", "no track", "short", "duplicate")

_WHY = {"silent": "no sample reaches 1e-4", "no track": "only a picture"}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one video.

    Attributes:
        problem: One of ``PROBLEMS``.
        id: The video's.
        split: The video's.
        label: Name of its class.
        path: Its file.
        reason: What was found.
    """

    problem: str
    id: str
    split: str
    label: str
    path: str
    reason: str


@dataclass(frozen=True)
class Report:
    """Everything that was found.

    Attributes:
        manifest: What was looked at.
        problems: Worst first, then in the list's order.
    """

    manifest: Manifest
    problems: tuple[Problem, ...]

    @property
    def broken(self) -> int:
        """How many videos break training."""
        return len({each.id for each in self.problems if each.problem in BREAKING})

    def counts(self) -> dict[str, dict[str, int]]:
        """By split: its videos, and how many have each of ``PROBLEMS``."""
        counts: dict[str, dict[str, int]] = {}
        for video in self.manifest.videos:
            row = counts.setdefault(video.split, {"videos": 0, **dict.fromkeys(PROBLEMS, 0)})
            row["videos"] += 1
        for each in self.problems:
            counts[each.split][each.problem] += 1
        return counts

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return {
            "data": self.manifest.name,
            "hash": self.manifest.hash,
            "counts": self.counts(),
            "files": [asdict(each) for each in self.problems],
        }


def verify(manifest: Manifest, effort: Effort, *, frames: int, deep: bool = False) -> Report:
    """Look at every video, at all frames if ``deep``, and compare files of one size.

    Args:
        manifest: What to look at.
        effort: How hard to try.
        frames: Length of a window; a shorter video repeats its frames.
        deep: Decode all frames and all sound, not only the index and the first sound.

    Raises:
        Interrupted: stopped by a signal; the same call goes on.
    """
    reasons: dict[tuple[int, int], list[str]] = defaultdict(list)  # by problem and video, as numbers

    def add(problem: str, place: int, reason: str) -> None:
        reasons[PROBLEMS.index(problem), place].append(reason)

    places: dict[str, list[int]] = defaultdict(list)  # of each file that can be read, its videos
    for place, found in examine(LOOK, subjects(manifest), effort):
        for problem, reason in _problems(found, frames):
            add(problem, place, reason)
        if isinstance(found, Finding) and not found.fault:
            places[str(manifest.videos[place].path)].append(place)
    if deep:
        for path, found in _of_files(DECODE, places, effort):
            damage = found.reason if isinstance(found, Lost) else found
            for place in places[path] if damage else ():
                add("corrupt", place, damage)
    for place, reason in _duplicates(manifest, effort):
        add("duplicate", place, reason)
    return Report(manifest, tuple(_problem(manifest, key, reasons[key]) for key in sorted(reasons)))


def _problems(found: Finding | Lost, frames: int) -> Iterator[tuple[str, str]]:
    if found is ABSENT:
        yield "missing", ABSENT.reason
    elif isinstance(found, Lost):
        yield "corrupt", found.reason
    elif found.fault:
        yield "corrupt", found.fault
    else:
        if found.damage:
            yield "corrupt", found.damage
        if found.sound != "present":
            yield found.sound, _WHY[found.sound]
        if found.frames < frames:
            yield "short", f"{found.frames} frames, a window has {frames}"


def _duplicates(manifest: Manifest, effort: Effort) -> Iterator[tuple[int, str]]:
    """Videos in files that have the bytes of one further up the list."""
    places: dict[str, list[int]] = defaultdict(list)
    by_size: dict[int, list[str]] = defaultdict(list)
    for place, (video, size) in enumerate(zip(manifest.videos, manifest.sizes, strict=True)):
        path = str(video.path)
        if size and path not in places:
            by_size[size].append(path)
        places[path].append(place)
    alike = [path for paths in by_size.values() if len(paths) > 1 for path in paths]
    by_digest: dict[str, list[str]] = defaultdict(list)
    for path, digest in _of_files(DIGEST, alike, effort):
        if not isinstance(digest, Lost):
            by_digest[digest].append(path)
    for paths in by_digest.values():
        first, *others = sorted(paths, key=lambda path: places[path][0])
        same = manifest.videos[places[first][0]]
        reason = f"same bytes as '{same.id}' ({same.split}, {manifest.classes[same.label]})"
        yield from ((place, reason) for path in others for place in places[path])


def _of_files(kind: Kind, paths: Iterable[str], effort: Effort) -> Iterator[tuple[str, Any]]:
    files = [Subject(path) for path in paths]
    yield from ((files[place].path, found) for place, found in examine(kind, files, effort))


def _problem(manifest: Manifest, key: tuple[int, int], reasons: Sequence[str]) -> Problem:
    video = manifest.videos[key[1]]
    label, reason = manifest.classes[video.label], "; ".join(reasons)
    return Problem(PROBLEMS[key[0]], video.id, video.split, label, str(video.path), reason)
