"""Every video of a data set with its label and split, hashed so that results can name what they saw."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from ccl_cli.data.video.storage import Location, contents_hash, from_plain, size_of, to_plain
from ccl_cli.errors import DataError, SystemSetupError
from ccl_cli.utils import json_text
from ccl_cli.utils.files import atomic_path

SPLITS = ("train", "val", "test")
UNLABELLED = -1
_FORMAT = "ccl-manifest-1"
_READERS = 16
_GROUPED = re.compile(r"(.*_g\d+)_c\d+")  # UCF101: clips of one group were cut from one video
_MISSING = re.compile(r"required positional arguments?: '(\w+)'")
_log = logging.getLogger("ccl")


@dataclass(frozen=True, slots=True)
class Video:
    """One row: a video file, or a stretch of one.

    Attributes:
        id: Unique within the data set: posix path without suffix, relative to the set's root.
        path: Absolute path of the file, which may be absent, or its place in a shard.
        label: Index into the manifest's classes; None: unlabelled.
        split: "train", "val" or "test".
        start: Seconds from the start of the file where the stretch begins; None: the file's start.
        end: Seconds where it ends; None: the file's end.
    """

    id: str
    path: Location
    label: int | None
    split: str
    start: float | None = None
    end: float | None = None

    @property
    def target(self) -> int:
        """The label as tensors hold it: :data:`UNLABELLED` where there is none."""
        return UNLABELLED if self.label is None else self.label


@dataclass(frozen=True)
class Manifest:
    """A split list of videos, with labels or without.

    File sizes are read once, when first needed: :attr:`hash` and :meth:`missing` describe that moment.

    Attributes:
        name: Shown in tables, for example ``ucf51-split1``.
        classes: Class names; a video's label is an index into them. Without any, no video has a label.
        videos: All rows, in the source's order.
    """

    name: str
    classes: tuple[str, ...]
    videos: tuple[Video, ...]

    def split(self, name: str) -> tuple[Video, ...]:
        """The rows of one split, in order."""
        return tuple(video for video in self.videos if video.split == name)

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits over classes, ids, labels, splits, stretches and file sizes, not locations."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for video, size in zip(self.videos, self.sizes, strict=True):
            row = (video.id, video.label, video.split, video.start, video.end, size)
            digest.update(repr(row).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def learnt_from(self) -> tuple[Video, ...]:
        """The rows that one may learn from or choose on, by id: the same whatever is held out."""
        return tuple(sorted((v for v in self.videos if v.split != "test"), key=lambda video: video.id))

    @cached_property
    def files_hash(self) -> str:
        """Sixteen hex digits over ids, stretches and contents of :attr:`learnt_from`, not over labels.

        Reads a little of each file, see :func:`contents_hash`.
        """
        paths = list(dict.fromkeys(video.path for video in self.learnt_from))
        with ThreadPoolExecutor(_READERS) as pool:  # a disk behind a network answers many at a time
            contents = dict(zip(paths, pool.map(contents_hash, paths), strict=True))
        digest = hashlib.sha256()
        for video in self.learnt_from:
            digest.update(repr((video.id, video.start, video.end, contents[video.path])).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def labels_hash(self) -> str:
        """As :attr:`files_hash`, over the names of the videos' classes too."""
        digest = hashlib.sha256(self.files_hash.encode())
        digest.update(json.dumps([self.class_name(video) for video in self.learnt_from]).encode())
        return digest.hexdigest()[:16]

    def class_name(self, video: Video) -> str:
        """The name of a video's class; "" where it has no label."""
        return "" if video.label is None else self.classes[video.label]

    def labelled(self) -> Manifest:
        """The videos that have a label.

        Raises:
            DataError: none has.
        """
        videos = tuple(video for video in self.videos if video.label is not None)
        if not videos:
            raise DataError(f"The videos of '{self.name}' have no labels.", "Name a data set that has them.")
        return self if len(videos) == len(self.videos) else replace(self, videos=videos)

    def keep_labels(self, per_class: int, seed: int = 0) -> Manifest:
        """Take the labels off all training videos but so many of each class.

        Chosen by a hash of their ids: the same ones on every machine, and those of a smaller number are among
        those of a larger one.
        """
        kept: Counter[int] = Counter()
        labels: dict[str, int] = {}
        for video in sorted(self.split("train"), key=lambda video: _place(seed, video.id)):
            if video.label is not None and kept[video.label] < per_class:
                kept[video.label] += 1
                labels[video.id] = video.label
        videos = (
            replace(video, label=labels.get(video.id)) if video.split == "train" else video
            for video in self.videos
        )
        return replace(self, videos=tuple(videos))

    def counts(self) -> dict[str, dict[str, int]]:
        """Labelled videos per split and class name; each split and class appears, if only with 0."""
        counter = Counter((video.split, video.label) for video in self.videos)
        return {
            split: {name: counter[split, label] for label, name in enumerate(self.classes)}
            for split in SPLITS
        }

    def missing(self, split: str) -> list[Video]:
        """The rows of one split whose file is not on disk."""
        rows = zip(self.videos, self.sizes, strict=True)
        return [video for video, size in rows if size is None and video.split == split]

    def hold_out(self, share: float, seed: int = 0) -> Manifest:
        """Set a share of each class's training videos, and of the unlabelled ones, aside as the val split.

        What belongs together stays together: stretches of one file, and videos of one group where ids tell
        (``v_Biking_g07_c03``). The same share and seed set the same videos aside.

        Raises:
            DataError: there is a val split already.
        """
        if self.split("val"):
            raise DataError(f"The data set '{self.name}' has a val split already.", "Leave holdout at 0.")
        by_class: defaultdict[int | None, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for video in self.split("train"):
            by_class[video.label][_group(video)].append(video.id)
        chosen = (_share_of(list(groups.values()), share, seed) for groups in by_class.values())
        aside = set(chain.from_iterable(chosen))
        videos = (replace(video, split="val") if video.id in aside else video for video in self.videos)
        return Manifest(self.name, self.classes, tuple(videos))

    def validate(self, need: Collection[str] = ("train",)) -> None:
        """Check that the rows fit together.

        Args:
            need: Splits that must hold at least one video.

        Raises:
            DataError: a duplicate id, a label out of range, an unknown split, a needed split without videos.
        """
        self._check_rows()
        for name in need:
            if not self.split(name):
                raise DataError(
                    f"The data set '{self.name}' has no videos in its {name} split.",
                    "`ccl data check` counts its splits; of a folder, ?test=0.25 holds some videos out.",
                )
        trained, tested = ({video.label for video in self.split(name)} for name in ("train", "test"))
        unseen = sorted(label for label in tested - trained if label is not None) if trained - {None} else []
        if unseen:
            names = ", ".join(self.classes[label] for label in unseen[:5])
            _log.warning("%d classes of the test split have no training video: %s", len(unseen), names)

    def save(self, path: Path, root: Path | None = None) -> None:
        """Write JSON lines, a header and then one row per video, atomically.

        Args:
            path: The file.
            root: Paths below this folder are written relative to it, so that the videos can be moved.

        Raises:
            SystemSetupError: the file cannot be written.
        """
        header = {"format": _FORMAT, "name": self.name, "classes": self.classes, "videos": len(self.videos)}
        header |= ({"root": str(root)} if root else {}) | {"hash": self.hash}
        rows = (json.dumps(_to_row(video, f"{root}{os.sep}" if root else "")) + "\n" for video in self.videos)
        try:
            with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
                file.write(json.dumps(header) + "\n")
                file.writelines(rows)
        except OSError as error:
            raise SystemSetupError(
                f"The manifest '{path}' cannot be written: {error.strerror}.",
                "Make room, or name another place.",
            ) from error

    @classmethod
    def load(cls, path: Path, root: Path | None = None) -> Manifest:
        """Read what :meth:`save` wrote.

        Args:
            path: The file.
            root: Folder that relative paths start from; None: the header's, else the manifest's own.

        Raises:
            DataError: absent, not a manifest, cut off, or a row that makes no sense.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            # One array parses three times faster than 200,000 lines.
            header, *rows = json_text.parse(f"[{','.join(lines)}]")
            if header["format"] != _FORMAT or header["videos"] != len(rows):
                raise ValueError("unknown format or missing rows")
            name, classes = str(header["name"]), tuple(map(str, header["classes"]))
            base = path.absolute().parent / (root or header.get("root", ""))
        except OSError as error:
            raise DataError(f"The manifest '{path}' cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"'{path}' is not a complete manifest.", "Write it again.") from error
        return cls(name, classes, tuple(_rows(path, rows, len(classes), base)))

    @cached_property
    def sizes(self) -> tuple[int | None, ...]:
        """Bytes of each video; None where it is absent."""
        return tuple(size_of(video.path) for video in self.videos)

    def _check_rows(self) -> None:
        repeated = [name for name, count in Counter(video.id for video in self.videos).items() if count > 1]
        if repeated:
            raise DataError(f"The data set '{self.name}' lists '{repeated[0]}' more than once.")
        classes = len(self.classes)
        for video in self.videos:
            if video.label is not None and not 0 <= video.label < classes:
                raise DataError(f"'{video.id}' has label {video.label}, but there are {classes} classes.")
            if video.split not in SPLITS:
                known = ", ".join(SPLITS)
                raise DataError(f"'{video.id}' is in the unknown split '{video.split}'.", f"Known: {known}.")


def unreadable_limit(videos: int, share: float) -> int:
    """How many of so many videos may be missing or unreadable: one at least, all of them never."""
    return min(max(1, int(share * videos)), videos - 1)


def check_unreadable(
    count: int,
    manifest: Manifest,
    split: str,
    limit: float,
    examples: Sequence[Video] = (),
    *,
    videos: int | None = None,
) -> None:
    """Stop when more of a split, or of so many ``videos`` of it, cannot be read than the recipe allows."""
    videos = len(manifest.split(split)) if videos is None else videos
    if count <= unreadable_limit(videos, limit) or not videos:
        return
    names = ", ".join(str(video.path) for video in examples[:3])
    raise DataError(
        f"{count} of {videos} videos of the {split} split of '{manifest.name}' are missing or unreadable, "
        f"more than the limit of {limit:.0%}{f'; for example {names}' if names else ''}.",
        "Fix them, or raise the limit with --set max_unreadable=SHARE; they count as errors in evaluation.",
    )


class DataSource(Protocol):
    """What a ``ccl.datasets`` entry point names: ``source:location?key=value`` to a manifest."""

    def __call__(self, location: str, **options: Any) -> Manifest:
        """List the data set at ``location`` ("" when the user named none).

        Raises:
            DataError: it is not there or does not have the expected layout.
        """
        ...


def read_header(path: Path) -> dict[str, Any]:
    """The first line of a saved manifest: its ``name``, the ``hash`` it had then, and more.

    Raises:
        DataError: it is no manifest.
    """
    try:
        with path.open(encoding="utf-8") as file:
            header = json_text.parse(file.readline())
        if header["format"] != _FORMAT:
            raise ValueError("not a manifest of this version")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"'{path}' is no manifest.", "Write it again.") from error
    return dict(header)


def _group(video: Video) -> str:
    numbered = _GROUPED.fullmatch(video.id)
    return numbered[1] if numbered else str(video.path)


def _place(seed: int, name: str) -> bytes:
    """Where a name stands in an order that is random, and the same everywhere."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _share_of(groups: list[list[str]], share: float, seed: int) -> list[str]:
    """Ids of whole groups, about that share of all; never all of them, and never none of several."""
    # Ordered by a hash: the choice depends neither on the source's order nor on where the files lie.
    groups = sorted(groups, key=lambda ids: _place(seed, min(ids)))
    wanted = share * sum(map(len, groups))
    chosen: list[str] = []
    for ids in groups[:-1]:
        if chosen and len(chosen) + len(ids) / 2 > wanted:
            break
        chosen += ids
    return chosen


def _to_row(video: Video, root: str) -> dict[str, Any]:
    plain = to_plain(video.path)
    path = plain.removeprefix(root) if isinstance(plain, str) else plain
    row = {"id": video.id, "path": path, "label": video.label, "split": video.split}
    return row | {key: at for key, at in (("start", video.start), ("end", video.end)) if at is not None}


def _rows(path: Path, rows: list[dict[str, Any]], classes: int, root: Path) -> Iterator[Video]:
    for line, row in enumerate(rows, 2):
        try:
            video = Video(**row)
            if not (isinstance(video.path, str | dict) and video.path):
                raise ValueError("the path must be a text, or say where in a shard")
            if wrong := fault(video, classes):
                raise ValueError(wrong)
            where = _located(root, row["path"])
            yield Video(video.id, where, video.label, video.split, video.start, video.end)
        except (TypeError, ValueError) as error:
            missing = _MISSING.search(str(error))
            reason = f"there is no {missing[1]}" if missing else error
            raise DataError(f"'{path}', line {line}: {reason}.", "Correct it or write it again.") from error


def fault(video: Video, classes: int) -> str | None:
    """What is wrong with the values of a row that came out of a file, its path aside."""
    if not (isinstance(video.id, str) and video.id):
        return "the id must be a text"
    if not isinstance(video.split, str):
        return "the split must be a text"
    if video.label is not None and (type(video.label) is not int or not 0 <= video.label < classes):
        return f"the label {video.label!r} is not one of the {classes} classes"
    for name, at in ("start", video.start), ("end", video.end):
        if at is not None and (type(at) not in (int, float) or not 0 <= at < math.inf):
            return f"the {name} {at!r} is not a number of seconds"
    if video.end is not None and video.end <= (video.start or 0):
        return f"the segment ends at {video.end:g} s, before it begins"
    return None


def _located(root: Path, path: str | dict[str, Any]) -> Location:
    """A place in a shard or an absolute path as it is, a relative one below the root."""
    if not isinstance(path, str):
        return from_plain(path)
    if ".." in path and os.path.normpath(path).startswith(".."):
        raise ValueError(f"the path '{path}' leaves the folder '{root}'")
    return root / path
