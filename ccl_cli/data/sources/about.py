"""Descriptions of data sources: example, and where to get a published set."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ccl_cli.errors import DataError
from ccl_cli.utils.paths import data_dir

Source = TypeVar("Source", bound=Callable[..., Any])


@dataclass(frozen=True)
class ListFile:
    """A list of videos that its publisher offers as one file.

    Attributes:
        title: Title, for example "annotations".
        name: File name; for a zip archive, the folder in it.
        url: Address of the file.
        checksum: Checksum as in :func:`ccl_cli.utils.download.fault`, or None.
    """

    title: str
    name: str
    url: str
    checksum: str | None = None


class ListMissing(DataError):
    """Only the list is missing, and can be downloaded to ``place``."""

    list_file: ListFile
    place: Path


@dataclass(frozen=True)
class Published:
    """A data set that is published as a list, whose videos are available elsewhere.

    Attributes:
        title: Title of the data set.
        list_file: Its list.
        videos: Word for its videos, and pattern of their file names.
        advice: How to get the videos; ``{folder}`` is replaced by their folder.
        folder: Folder of the videos, below the data folder.
    """

    title: str
    list_file: ListFile
    videos: str
    advice: str
    folder: str

    @property
    def home(self) -> Path:
        """Default folder of the videos."""
        return data_dir() / self.folder

    def find_list(self, root: Path, given: str | None) -> Path | None:
        """The list that a user names, itself or its folder, or else the one inside or beside the videos."""
        file = self.list_file
        folders = [Path(given).expanduser()] if given else [root, root.parent]
        places = [folder / file.name for folder in folders] + (folders if given else [])
        return next(filter(Path.is_dir if file.url.endswith(".zip") else Path.is_file, places), None)

    def absent(self, root: Path, list_file: Path | None, given: str | None, videos: bool) -> DataError:
        """Make an error that names the missing parts and where to get them.

        ``given`` is the path of the list that the user named, and ``videos`` whether ``root`` has any.
        """
        file, place = self.list_file, Path(given).expanduser() if given else root / self.list_file.name
        missing, steps = [], []
        if list_file is None:
            missing.append(f"its {file.title} (no '{place}')")
            steps.append(f"Put {file.url} at {place}; `ccl data prepare` downloads it with --yes.")
        if list_file is not None or not videos:
            missing.append(f"its videos (no listed {self.videos} in '{root}')")
            steps.append(self.advice.format(folder=root))
        message, hint = f"{self.title} lacks {' and '.join(missing)}.", "\n  ".join(steps)
        if len(missing) == 2 or list_file is not None:
            return DataError(message, hint)
        error = ListMissing(message, hint)
        error.list_file, error.place = file, place
        return error


@dataclass(frozen=True)
class About:
    """Description of a data source in ``ccl data ls``.

    Attributes:
        text: One line about the source.
        example: Example for ``--data``, or "".
        published: Where to get a published set, or None.
    """

    text: str
    example: str = ""
    published: Published | None = None


def described(text: str, example: str, published: Published | None = None) -> Callable[[Source], Source]:
    """Decorate a data source with its description."""

    def mark(source: Source) -> Source:
        source.about = About(text, example, published)  # type: ignore[attr-defined]
        return source

    return mark


def about(source: Callable[..., Any]) -> About:
    """Description of a source, or else the first line of its docstring."""
    about = getattr(source, "about", None)
    if isinstance(about, About):
        return about
    return About((inspect.getdoc(source) or "").partition("\n")[0] or "It does not say what it is.")
