"""The manifest of a data set: all videos with labels and splits, and hashes of them."""

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
from ccl_cli.data.manifest.columns import ABSENT, SPLIT_CODES, SPLITS, UNLABELLED, Texts, Video
from ccl_cli.data.manifest.groups import choose_labels, choose_share
from ccl_cli.data.manifest.json_lines import FORMAT, parse_header, read_lines, write_lines
from ccl_cli.data.manifest.videos import Videos
from ccl_cli.data.video.storage import contents_hash
from ccl_cli.errors import DataError
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
    "read_header",
    "unreadable_limit",
]
_READERS = 16  # threads that read files for a hash
_MAPPED = 100_000  # rows; a longer list (10 MB) is mapped from a file, which all workers share
_log = logging.getLogger("ccl")


@dataclass(frozen=True, init=False)
class Manifest:
    """A list of videos with splits, with or without labels.

    A list that is mapped from a file contains the sizes of the videos at the time when the file was
    written. For other lists the sizes are read once, when :attr:`hash` or :meth:`missing` first needs them.

    Attributes:
        name: Name in tables, for example ``ucf51-split1``.
        classes: Class names. A label is an index into them; without classes, no video has a label.
        videos: All rows, in the order of the data source.
    """

    name: str
    classes: tuple[str, ...]
    videos: Videos

    def __init__(self, name: str, classes: Sequence[str], videos: Iterable[Video]) -> None:
        """Convert the rows to columns; a DataError names one whose attribute has a wrong type."""
        vars(self).update(name=name, classes=tuple(classes), videos=Videos.of(videos))

    def split(self, name: str) -> Videos:
        """The rows of one split, in order."""
        return self.videos.where(self.videos.in_split(name))

    @cached_property
    def hash(self) -> str:
        """Hash of classes, ids, labels, splits, segments and file sizes, but not of paths; 16 hex digits."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        ids = self.videos.ids
        digest.update(ids.lengths.data)
        digest.update(ids.content)
        for name in ("label", "split", "start", "end"):
            digest.update(np.ascontiguousarray(self.videos.column(name)).data)
        digest.update(self.sizes.data)
        return digest.hexdigest()[:16]

    @cached_property
    def cacheable(self) -> Videos:
        """Rows of a cache: training and validation split, sorted by id, and thus equal for any hold-out."""
        videos = self.videos.where(~self.videos.in_split("test"))
        return videos.take(np.from_dlpack(pc.sort_indices(videos.ids.values)))

    @cached_property
    def files_hash(self) -> str:
        """Hash of ids, segments and contents of :attr:`cacheable`, but not of labels; 16 hex digits."""
        paths = list(dict.fromkeys(video.path for video in self.cacheable))
        with ThreadPoolExecutor(_READERS) as pool:  # a network disk answers many requests at a time
            contents = dict(zip(paths, pool.map(contents_hash, paths), strict=True))
        digest = hashlib.sha256()
        for video in self.cacheable:
            digest.update(repr((video.id, video.start, video.end, contents[video.path])).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def labels_hash(self) -> str:
        """Hash of :attr:`files_hash` and the class names of these videos; 16 hex digits."""
        digest = hashlib.sha256(self.files_hash.encode())
        digest.update(json.dumps([self.class_name(video) for video in self.cacheable]).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """[n] size of each video, bytes; :data:`ABSENT` without a file."""
        if self.videos.columns.size is not None:
            return np.ascontiguousarray(self.videos.column("size"))
        return np.fromiter(self.videos.columns.measure(self.videos.numbers), np.int64, len(self.videos))

    @property
    def is_mapped(self) -> bool:
        """Whether the rows are mapped from a file."""
        return self.videos.columns.file is not None

    def class_name(self, video: Video) -> str:
        """Name of a video's class; "" without a label."""
        return "" if video.label is None else self.classes[video.label]

    def labelled(self) -> Manifest:
        """The manifest without unlabelled videos.

        Raises:
            DataError: no video has a label.
        """
        labelled = self.videos.labelled
        if not labelled.any():
            raise DataError(f"The videos of '{self.name}' have no labels.", "Name a data set that has them.")
        return self if labelled.all() else replace(self, videos=self.videos.where(labelled))

    def keep_labels(self, per_class: int, seed: int = 0) -> Manifest:
        """Remove the labels of all training videos except ``per_class`` videos of each class.

        They are chosen by a hash of their ids: the same ones on every machine, and a smaller number is a
        subset of a larger one.
        """
        labels, trained = self.videos.column("label").copy(), self.videos.in_split("train")
        chosen = choose_labels(self.split("train"), per_class, seed)
        labels[trained] = np.where(chosen, labels[trained], UNLABELLED)
        return replace(self, videos=self.videos.with_column("label", labels))

    def missing(self, split: str) -> Videos:
        """The rows of one split without a file."""
        return self.videos.where((self.sizes == ABSENT) & self.videos.in_split(split))

    def hold_out(self, share: float, seed: int = 0) -> Manifest:
        """Make a share of each class's training videos, and of unlabelled ones, the validation split.

        Segments of one file stay together, and so do videos of one group of UCF101 (``v_Biking_g07_c03``).
        The same share and seed select the same videos.

        Raises:
            DataError: the data set already has a validation split.
        """
        if self.split("val"):
            raise DataError(f"The data set '{self.name}' has a val split already.", "Set holdout to 0.")
        splits, trained = self.videos.column("split").copy(), self.videos.in_split("train")
        splits[np.flatnonzero(trained)[choose_share(self.split("train"), share, seed)]] = SPLIT_CODES["val"]
        return replace(self, videos=self.videos.with_column("split", splits))

    def validate(self, need: Collection[str] = ("train",)) -> None:
        """Check ids, labels, splits and segments. The splits in ``need`` must not be empty.

        Raises:
            DataError: a row is invalid, an id is duplicate, or a needed split is empty.
        """
        self._check_rows()
        for name in need:
            if not self.videos.in_split(name).any():
                raise DataError(
                    f"The data set '{self.name}' has no videos in its {name} split.",
                    "`ccl data check` counts its splits; of a folder, ?test=0.25 holds some videos out.",
                )
        labels = self.videos.column("label")
        masks = [self.videos.in_split(split) & (labels != UNLABELLED) for split in ("train", "test")]
        trained, tested = (np.bincount(labels[mask], minlength=len(self.classes)) > 0 for mask in masks)
        unseen = np.flatnonzero(tested & ~trained)
        if trained.any() and len(unseen):
            names = ", ".join(self.classes[label] for label in unseen[:5])
            _log.warning("%d classes of the test split have no training video: %s", len(unseen), names)

    def save(self, path: Path, root: Path | None = None) -> None:
        """Write the manifest, atomically: an Arrow file if the name ends in ``.arrow``, else JSON lines.

        Paths below ``root`` are written relative to it, so that the videos can be moved.
        """
        videos = self.videos.below(str(root or ""))
        header = {"format": FORMAT, "name": self.name, "classes": self.classes, "videos": len(videos)}
        header |= {"hash": self.hash} | ({"root": videos.columns.root} if videos.columns.root else {})
        if path.suffix == SUFFIX:
            self._check_rows()  # checked now, because it takes too long whenever the file is opened
            write_arrow(path, videos, self.sizes, header)
        else:
            write_lines(path, videos, header)

    @classmethod
    def load(cls, path: Path, root: Path | str | None = None) -> Manifest:
        """Read a file of :meth:`save`. An Arrow file is mapped, and its rows are read when they are used.

        Relative paths are below ``root``, or else the root of the header, or else the manifest's folder.

        Raises:
            DataError: the file is missing, truncated or not a manifest, or a row is invalid.
        """
        read = map_columns if path.suffix == SUFFIX else read_lines
        columns, header = read(path, root)
        manifest = cls(header["name"], header["classes"], Videos(columns))
        if manifest.is_mapped:
            vars(manifest)["hash"] = header["hash"]
            manifest._check_rows()
        return manifest

    def mapped(self) -> Manifest:
        """Write a long manifest to ``CCL_HOME`` and map it, so that all processes and runs share one copy.

        The file is named after a hash of the content. A short manifest is returned unchanged.
        """
        if self.is_mapped or len(self.videos) < _MAPPED:
            return self
        digest = hashlib.sha256(json.dumps([self.name, self.hash, self.videos.columns.root]).encode())
        digest.update(self.videos.texts("path").content)
        path = cache_dir() / "manifests" / f"{digest.hexdigest()[:16]}{SUFFIX}"
        if not path.is_file():
            self.save(path)
        return Manifest.load(path)

    def _check_rows(self) -> None:
        videos = self.videos
        if not len(videos):
            return
        for name, low, high in ("label", UNLABELLED, len(self.classes) - 1), ("split", 0, len(SPLITS) - 1):
            values = videos.column(name)
            if values.min() < low or values.max() > high:
                row = int(np.argmax((values < low) | (values > high)))
                raise DataError(f"'{videos.ids[row]}' has {name} {values[row]}; the last one is {high}.")
        if self.is_mapped:  # the rest was checked when the file was written
            return
        begin, end = np.fmax(videos.column("start"), 0), videos.column("end")
        wrong = (videos.column("start") < 0) | np.isinf(begin) | np.isinf(end) | (end <= begin)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"The segment of '{videos.ids[row]}' is not one: {begin[row]:g} to {end[row]:g} s."
            )
        ids = videos.ids.values
        ids = ids.take(pc.sort_indices(ids))  # neighbours: a table of hashes takes four times the memory
        repeated = pc.equal(ids[1:], ids[:-1])
        if pc.any(repeated).as_py():
            name = Texts(ids)[int(np.from_dlpack(pc.indices_nonzero(repeated))[0])]
            raise DataError(f"The data set '{self.name}' lists '{name}' more than once.")


def unreadable_limit(videos: int, share: float) -> int:
    """Largest number of videos that may be missing or unreadable: at least one, and never all."""
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
    """Check that few enough videos are missing or unreadable.

    Args:
        count: Number of missing and unreadable videos.
        manifest: Data set.
        split: Name of the split.
        limit: Largest allowed share.
        examples: Videos to name in the message.
        videos: Number of videos of which ``count`` is a part; None: all of the split.

    Raises:
        DataError: there are too many.
    """
    videos = len(manifest.split(split)) if videos is None else videos
    if count <= unreadable_limit(videos, limit) or not videos:
        return
    names = ", ".join(str(video.path) for video in examples[:3])
    raise DataError(
        f"{count} of {videos} videos of the {split} split of '{manifest.name}' are missing or unreadable, "
        f"more than the limit of {limit:.0%}{f'; for example {names}' if names else ''}.",
        "Fix or remove them, or raise max_unreadable in the recipe; they count as errors in evaluation.",
    )


class DataSource(Protocol):
    """A data source, the object of a ``ccl.datasets`` entry point."""

    def __call__(self, location: str, **options: Any) -> Manifest:
        """List the data set of ``source:location?key=value``; the location is "" if the user gives none.

        Raises:
            DataError: the data set is missing or has another layout.
        """
        ...


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a saved manifest, with its ``name`` and its ``hash`` when it was saved.

    Raises:
        DataError: the file is not a manifest.
    """
    if path.suffix == SUFFIX:
        return map_columns(path)[1]
    try:
        with path.open(encoding="utf-8") as file:
            return parse_header(file.readline())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"'{path}' is not a manifest.", "Write it again.") from error
