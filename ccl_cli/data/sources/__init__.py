"""Data sources: one file each, registered under ``ccl.datasets``, from a location to a manifest."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, ValidationError, validate_call

from ccl_cli import registry
from ccl_cli.config.spec import Spec, parse_data
from ccl_cli.data.manifest import DataSource, Manifest, Video
from ccl_cli.errors import RecipeError

SUFFIXES = frozenset(
    (".mp4", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".3gp")
)
# Common names of splits.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Row(NamedTuple):
    """A row of a manifest, with the name of its class; "" without a label."""

    id: str
    path: Path
    class_name: str
    split: str
    start: float | None = None
    end: float | None = None


def manifest_of(name: str, rows: Iterable[Row], classes: Iterable[str] = ()) -> Manifest:
    """Make a manifest of rows. The classes are those of the rows, sorted, unless they are given."""
    rows = list(rows)
    classes = tuple(classes) or tuple(sorted({row.class_name for row in rows} - {""}))
    labels = {each: label for label, each in enumerate(classes)}
    videos = (
        Video(row.id, row.path, labels.get(row.class_name), row.split, row.start, row.end) for row in rows
    )
    return Manifest(name, classes, videos)


def load_data(data: str | Spec | None, need: Collection[str] = ("train",)) -> Manifest:
    """Load the manifest of the data set that a user names. The splits in ``need`` must not be empty."""
    if data is None:
        raise RecipeError(
            "No data set is named.",
            "For example `ccl train --data folder:my_videos` or `ccl data show folder:my_videos`. "
            "`ccl data ls` lists the data sources.",
        )
    spec = data if isinstance(data, Spec) else parse_data(data)
    plugin = registry.find(registry.DATASETS, spec.kind)
    source = registry.load(plugin)
    with registry.blaming(plugin):
        manifest = load_source(spec.kind, source, spec.name, spec.options)
    manifest.validate(need)
    return manifest.mapped()


def load_source(name: str, source: DataSource, location: str, options: Mapping[str, Any]) -> Manifest:
    """Call a data source, with options checked against its signature.

    Raises:
        RecipeError: the source has no such option, or a value has a wrong type or range.
        DataError: raised by the source.
    """
    checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(source)
    try:
        manifest: Manifest = checked(location, **options)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = str(wrong["loc"][0]) if wrong["loc"] else "?"
        raise RecipeError(
            f"Data source '{name}': {option}={options.get(option)}: {wrong['msg']}.",
            f"`ccl data info {name}` describes its options.",
        ) from error
    return manifest


def files_below(root: Path, closed: dict[str, str] | None = None) -> Iterator[Path]:
    """All files below a folder, sorted, without hidden ones. A linked folder is entered once.

    Args:
        root: The folder.
        closed: Filled with reasons by folder, for folders that cannot be read.
    """
    return (Path(folder, name) for folder, name in _walk(root, closed))


def videos_by_stem(root: Path) -> dict[str, str]:
    """Paths of all videos below a folder, by name without suffix; for equal names, the first one in order."""
    # For 200,000 files, creating Path objects would take most of the time.
    paths: dict[str, str] = {}
    for folder, name in _walk(root.absolute()):
        stem, suffix = posixpath.splitext(name)
        if suffix.lower() in SUFFIXES:
            paths.setdefault(stem, f"{folder}/{name}")
    return paths


def _walk(root: Path, closed: dict[str, str] | None = None) -> Iterator[tuple[str, str]]:
    def refused(error: OSError) -> None:
        if closed is not None:
            closed[str(error.filename)] = f"it cannot be looked into: {error.strerror}"

    entered: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, onerror=refused, followlinks=True):
        stat = Path(folder).stat()
        if (stat.st_dev, stat.st_ino) in entered:
            folders.clear()
            continue
        entered.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from ((folder, name) for name in sorted(files) if name[0] != ".")


def unique_ids(paths: Sequence[str]) -> list[str]:
    """Relative posix paths without suffix, which is kept if two files differ only in the suffix."""
    stems = [posixpath.splitext(path)[0] for path in paths]
    counts = Counter(stems)
    return [stem if counts[stem] == 1 else path for stem, path in zip(stems, paths, strict=True)]
