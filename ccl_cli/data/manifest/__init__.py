"""Every video of a data set with its label and split, hashed so that results can name what they saw."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ccl_cli.data.manifest.arrow_file import SUFFIX, map_columns, write_arrow
from ccl_cli.data.manifest.columns import ABSENT, CODES, SPLITS, UNLABELLED, Texts, Video
from ccl_cli.data.manifest.groups import choose_labels, choose_share
from ccl_cli.data.manifest.json_lines import FORMAT, fault, parse_header, read_lines, write_lines
from ccl_cli.data.manifest.videos import Videos
from ccl_cli.data.video.storage import contents_hash
from ccl_cli.errors import DataError, SystemSetupError
from ccl_cli.utils.paths import cache_dir

__all__ = [
    "ABSENT",
    "SPLITS",
    "UNLABELLED",
    "DataSource",
    "Manifest",
    "Video",
    "Videos",
    "check_unreadable",
    "fault",
    "read_header",
    "unreadable_limit",
]
_READERS = 16
_MAPPED = 100_000  # rows from which on a list is mapped: about 10 MB, which every worker would hold
_log = logging.getLogger("ccl")


@dataclass(frozen=True, init=False)
class Manifest:
    """A split list of videos, with labels or without.

    A list that is mapped from a file contains the sizes that its videos had when the file was written. Other
    lists read them once, when first needed: :attr:`hash` and :meth:`missing` describe that moment.

    Attributes:
        name: Shown in tables, for example ``ucf51-split1``.
        classes: Class names; a video's label is an index into them. Without any, no video has a label.
        videos: All rows, in the source's order.
    """

    name: str
    classes: tuple[str, ...]
    videos: Videos

    def __init__(self, name: str, classes: Sequence[str], videos: Iterable[Video]) -> None:
        """Take the rows as columns.

        Raises:
            DataError: a row holds something else than its attributes should.
        """
        values = {"name": name, "classes": tuple(classes), "videos": Videos.of(videos)}
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def split(self, name: str) -> Videos:
        """The rows of one split, in order."""
        return self.videos.where(self.videos.in_split(name))

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits over classes, ids, labels, splits, segments and file sizes, not locations."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        ids = self.videos.ids
        digest.update(ids.lengths.data)
        digest.update(ids.content)
        for name in ("label", "split", "start", "end"):
            digest.update(np.ascontiguousarray(self.videos.column(name)).data)
        digest.update(self.sizes.data)
        return digest.hexdigest()[:16]

    @cached_property
    def learnt_from(self) -> Videos:
        """The rows that one may learn from or choose on, by id: the same whatever is held out."""
        videos = self.videos.where(~self.videos.in_split("test"))
        return videos.take(np.from_dlpack(pc.sort_indices(videos.ids.values)))

    @cached_property
    def files_hash(self) -> str:
        """Sixteen hex digits over ids, segments and contents of :attr:`learnt_from`, not over labels.

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

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """[n] bytes of each video; :data:`ABSENT` where there is no file."""
        if self.videos.columns.size is not None:
            return np.ascontiguousarray(self.videos.column("size"))
        return np.fromiter(self.videos.columns.measure(self.videos.numbers), np.int64, len(self.videos))

    @property
    def is_mapped(self) -> bool:
        """Whether the rows are those of a mapped file."""
        return self.videos.columns.file is not None

    def class_name(self, video: Video) -> str:
        """The name of a video's class; "" where it has no label."""
        return "" if video.label is None else self.classes[video.label]

    def labelled(self) -> Manifest:
        """The videos that have a label.

        Raises:
            DataError: none has.
        """
        labelled = self.videos.labelled
        if not labelled.any():
            raise DataError(f"The videos of '{self.name}' have no labels.", "Name a data set that has them.")
        return self if labelled.all() else replace(self, videos=self.videos.where(labelled))

    def keep_labels(self, per_class: int, seed: int = 0) -> Manifest:
        """Take the labels off all training videos but so many of each class.

        Chosen by a hash of their ids: the same ones on every machine, and those of a smaller number are among
        those of a larger one.
        """
        labels, trained = self.videos.column("label").copy(), self.videos.in_split("train")
        chosen = choose_labels(self.split("train"), per_class, seed)
        labels[trained] = np.where(chosen, labels[trained], UNLABELLED)
        return replace(self, videos=self.videos.with_column("label", labels))

    def counts(self) -> dict[str, dict[str, int]]:
        """Labelled videos per split and class name; each split and class appears, if only with 0."""
        return {
            split: dict(zip(self.classes, self._per_class(split).tolist(), strict=True)) for split in SPLITS
        }

    def missing(self, split: str) -> Videos:
        """The rows of one split whose file is not on disk."""
        return self.videos.where((self.sizes == ABSENT) & self.videos.in_split(split))

    def hold_out(self, share: float, seed: int = 0) -> Manifest:
        """Set a share of each class's training videos, and of the unlabelled ones, aside as the val split.

        What belongs together stays together: segments of one file, and videos of one group where ids tell
        (``v_Biking_g07_c03``). The same share and seed set the same videos aside.

        Raises:
            DataError: there is a val split already.
        """
        if self.split("val"):
            raise DataError(f"The data set '{self.name}' has a val split already.", "Leave holdout at 0.")
        splits, trained = self.videos.column("split").copy(), self.videos.in_split("train")
        splits[np.flatnonzero(trained)[choose_share(self.split("train"), share, seed)]] = CODES["val"]
        return replace(self, videos=self.videos.with_column("split", splits))

    def validate(self, need: Collection[str] = ("train",)) -> None:
        """Check that the rows fit together.

        Args:
            need: Splits that must hold at least one video.

        Raises:
            DataError: a duplicate id, a label out of range, a needed split without videos.
        """
        self._check_rows()
        for name in need:
            if not self.videos.in_split(name).any():
                raise DataError(
                    f"The data set '{self.name}' has no videos in its {name} split.",
                    "`ccl data check` counts its splits; of a folder, ?test=0.25 holds some videos out.",
                )
        trained, tested = self._per_class("train"), self._per_class("test")
        unseen = np.flatnonzero((tested > 0) & (trained == 0))
        if trained.any() and len(unseen):
            names = ", ".join(self.classes[label] for label in unseen[:5])
            _log.warning("%d classes of the test split have no training video: %s", len(unseen), names)

    def save(self, path: Path, root: Path | None = None) -> None:
        """Write the manifest, atomically: an Arrow file if the name ends in ``.arrow``, else JSON lines.

        Args:
            path: The file.
            root: Paths below this folder are written relative to it, so that the videos can be moved.

        Raises:
            SystemSetupError: the file cannot be written.
        """
        base = str(root) if root else ""
        header = {"format": FORMAT, "name": self.name, "classes": self.classes, "videos": len(self.videos)}
        header |= {"hash": self.hash}
        try:
            if path.suffix == SUFFIX:
                self._check_rows()  # nobody checks ten million ids when the file is opened
                write_arrow(path, self.videos, self.sizes, header, base)
            else:
                write_lines(path, self.videos, header, base)
        except OSError as error:
            raise SystemSetupError(
                f"The manifest '{path}' cannot be written: {error.strerror}.",
                "Make room, or name another place.",
            ) from error

    @classmethod
    def load(cls, path: Path, root: Path | str | None = None) -> Manifest:
        """Read what :meth:`save` wrote. An Arrow file is mapped: only what is looked at is read.

        Args:
            path: The file.
            root: Folder that relative paths start from; None: the header's, else the manifest's own.

        Raises:
            DataError: absent, not a manifest, cut off, or a row that makes no sense.
        """
        read = map_columns if path.suffix == SUFFIX else read_lines
        columns, header = read(path, root)
        manifest = cls(header["name"], header["classes"], Videos(columns))
        if manifest.is_mapped:
            vars(manifest)["hash"] = header["hash"]
            manifest._check_rows()
        return manifest

    def mapped(self) -> Manifest:
        """The same, mapped from a file below ``CCL_HOME`` if it is large.

        Every process and every run on this machine then shares one copy in memory. The file is named after
        the content.

        Raises:
            SystemSetupError: it cannot be written.
        """
        if self.is_mapped or len(self.videos) < _MAPPED:
            return self
        digest = hashlib.sha256(json.dumps([self.name, self.hash, self.videos.columns.root]).encode())
        digest.update(self.videos.texts("path").content)
        path = cache_dir() / "manifests" / f"{digest.hexdigest()[:16]}{SUFFIX}"
        if not path.is_file():
            self.save(path)
        return Manifest.load(path)

    def _per_class(self, split: str) -> NDArray[np.int64]:
        labels = self.videos.column("label")[self.videos.in_split(split) & self.videos.labelled]
        return np.bincount(labels, minlength=len(self.classes))[: len(self.classes)]

    def _check_rows(self) -> None:
        videos, classes = self.videos, len(self.classes)
        labels = videos.column("label")
        if not len(labels):
            return
        if labels.max() >= classes or labels.min() < UNLABELLED:
            row = int(np.argmax((labels >= classes) | (labels < UNLABELLED)))
            raise DataError(f"'{videos.ids[row]}' has label {labels[row]}, but there are {classes} classes.")
        if videos.column("split").max() >= len(SPLITS) or videos.column("split").min() < 0:
            raise DataError(f"The data set '{self.name}' has videos in an unknown split.", "Write it again.")
        if self.is_mapped:  # checked when it was written
            return
        ids = videos.ids.values
        ids = ids.take(pc.sort_indices(ids))  # neighbours: a table of hashes takes four times the memory
        repeated = pc.index(pc.equal(ids[1:], ids[:-1]), True).as_py()
        if repeated >= 0:
            name = Texts(ids)[repeated]
            raise DataError(f"The data set '{self.name}' lists '{name}' more than once.")


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
    """What a saved manifest says of itself: its ``name``, the ``hash`` it had then, and more.

    Raises:
        DataError: it is no manifest.
    """
    if path.suffix == SUFFIX:
        return map_columns(path)[1]
    try:
        with path.open(encoding="utf-8") as file:
            return parse_header(file.readline())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"'{path}' is no manifest.", "Write it again.") from error
