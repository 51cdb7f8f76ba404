"""Descriptions of data sources: example, and where to get a published set."""

from __future__ import annotations

import inspect
import shlex
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
    """Only the list is missing, and can be downloaded."""

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        list_file: ListFile | None = None,
        place: Path | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.list_file, self.place = list_file, place


@dataclass(frozen=True)
class Published:
    """A data set that is published as a list, whose videos are available elsewhere.

    Attributes:
        title: Title of the data set.
        list_file: Its list.
        videos: Word for its videos, and pattern of their file names.
        advice: How to get the videos; ``{folder}`` is replaced by their folder.
        folder: Folder of the videos, below the data folder.
        list_folder: Folder of the list, below the data folder.
    """

    title: str
    list_file: ListFile
    videos: tuple[str, str]
    advice: str
    folder: str
    list_folder: str

    @property
    def home(self) -> Path:
        """Default folder of the videos."""
        return data_dir() / self.folder

    @property
    def list_place(self) -> Path:
        """Default path of the list."""
        return data_dir() / self.list_folder / self.list_file.name

    def find_list(self, root: Path, given: str | None) -> Path | None:
        """The list that a user names, itself or its folder, or else the one inside or beside the videos."""
        folders = [Path(given).expanduser()] if given else [root, root.parent]
        places = [place for folder in folders for place in (folder, folder / self.list_file.name)]
        return next((place for place in places if place.is_file()), None)

    def absent(self, root: Path, list_file: Path | None, given: str | None, other_videos: bool) -> DataError:
        """Make an error that names the missing parts and where to get them.

        Args:
            root: Folder of the videos.
            list_file: The list, or None if it is missing.
            given: Path of the list that the user named, or None.
            other_videos: Whether ``root`` contains videos, which may or may not be listed.
        """
        folder, name = shlex.quote(str(root)), self.list_file.name
        missing, steps = [], []
        if list_file is None:
            missing.append(f"its {self.list_file.title} (no '{given or root / name}')")
            steps.append(f"mkdir -p {folder} && curl -L -o {folder}/{name} {self.list_file.url}")
        if list_file is not None or not other_videos:
            what, files = self.videos
            missing.append(f"its {what} (no listed {files} in '{root}')")
            steps.append(self.advice.format(folder=folder))
        message, hint = f"{self.title} lacks {' and '.join(missing)}.", "\n  ".join(steps)
        if list_file is not None or not other_videos:
            return DataError(message, hint)
        place = Path(given).expanduser() if given else root
        place = place / name if place.is_dir() else place
        return ListMissing(message, hint, self.list_file, place)


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
