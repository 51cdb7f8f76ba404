"""Data sources: one file each, registered under ``ccl.datasets``, turning a location into a manifest."""

from __future__ import annotations

import inspect
import os
import posixpath
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from ccl_cli.data.manifest import DataSource, Manifest
from ccl_cli.errors import DataError, RecipeError

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in "mp4 avi mkv webm mov mpg mpeg m4v wmv flv 3gp".split()  # noqa: SIM905
)
# The names under which people keep their splits.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def load_source(name: str, source: DataSource, location: str, options: Mapping[str, Any]) -> Manifest:
    """Call a data source with options checked against its signature.

    Raises:
        RecipeError: an option that the source does not take, or a value of the wrong type or range.
        DataError: what the source itself finds wrong.
    """
    checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(source)
    try:
        manifest: Manifest = checked(location, **options)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = str(wrong["loc"][0]) if wrong["loc"] else "?"
        if wrong["type"] in ("unexpected_keyword_argument", "multiple_argument_values"):
            raise RecipeError(f"Data source '{name}' has no option '{option}'.", _accepted(source)) from error
        raise RecipeError(f"Data source '{name}': {option}={options.get(option)}: {wrong['msg']}.") from error
    return manifest


def files_below(root: Path) -> Iterator[Path]:
    """Every file below a folder, sorted, except hidden ones; a linked folder is entered once."""
    return (Path(folder, name) for folder, names in _walk(root) for name in names)


def videos_by_stem(root: Path) -> dict[str, str]:
    """The path of every video below a folder by its name without suffix; of several, the first as sorted."""
    # Over 200,000 files, making a Path of each would take most of the time.
    found: dict[str, str] = {}
    for folder, names in _walk(root.absolute()):
        for name in names:
            stem, suffix = posixpath.splitext(name)
            if suffix.lower() in SUFFIXES:
                found.setdefault(stem, f"{folder}{os.sep}{name}")
    return found


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    entered: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        stat = Path(folder).stat()
        if (stat.st_dev, stat.st_ino) in entered:
            folders.clear()
            continue
        entered.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, sorted(name for name in files if not name.startswith("."))


@dataclass(frozen=True)
class Published:
    """Where a data set comes from that is published as a list, with its videos to be had elsewhere.

    Attributes:
        title: Of the data set.
        list_title: What its list is called.
        list_name: File name of the list.
        list_url: Where it can be downloaded.
        videos: What its videos are called, and their files.
        advice: How to get these; ``{folder}`` is where they belong.
    """

    title: str
    list_title: str
    list_name: str
    list_url: str
    videos: tuple[str, str]
    advice: str

    def list_file(self, root: Path, given: str | None) -> Path | None:
        """The list a user named, itself or in a folder, else the one inside or beside the videos."""
        folders = [Path(given).expanduser()] if given else [root, root.parent]
        places = [place for folder in folders for place in (folder, folder / self.list_name)]
        return next((place for place in places if place.is_file()), None)

    def absent(self, root: Path, found: Path | None, given: str | None, other_videos: bool) -> DataError:
        """What is missing in ``root`` and where to get it.

        Args:
            root: Where the videos belong.
            found: The list, if it is there.
            given: Where the user said it is.
            other_videos: Whether ``root`` holds videos, of which we do not know whether they are listed.
        """
        folder = shlex.quote(str(root))
        missing, steps = [], []
        if found is None:
            missing.append(f"its {self.list_title} (no '{given or root / self.list_name}')")
            steps.append(f"mkdir -p {folder} && curl -L -o {folder}/{self.list_name} {self.list_url}")
        if found is not None or not other_videos:
            name, files = self.videos
            missing.append(f"its {name} (no listed {files} in '{root}')")
            steps.append(self.advice.format(folder=folder))
        return DataError(f"{self.title} lacks {' and '.join(missing)}.", "\n  ".join(steps))


def unique_ids(paths: Sequence[str]) -> list[str]:
    """Relative posix paths without suffix; it stays where two files differ in nothing else."""
    stems = [posixpath.splitext(path)[0] for path in paths]
    counts = Counter(stems)
    return [stem if counts[stem] == 1 else path for stem, path in zip(stems, paths, strict=True)]


def _accepted(source: DataSource) -> str:
    keyword = inspect.Parameter.KEYWORD_ONLY
    names = [p.name for p in inspect.signature(source).parameters.values() if p.kind == keyword]
    return f"Options: {', '.join(names)}." if names else "It takes no options."
