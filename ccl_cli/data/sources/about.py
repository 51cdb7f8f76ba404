"""Descriptions of data sources: example, and where to get a published set."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ccl_cli.data.sources import videos_by_stem
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
        checksum: Checksum as in :func:`ccl_cli.utils.download.download_fault`, or None.
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

    def find(self, root: Path, lists: str | None, needed: bool = True) -> tuple[Path, dict[str, str]]:
        """Find the list and the videos, as paths by name without suffix.

        Args:
            root: Folder of the videos.
            lists: The list that the user names, or its folder; None: it is inside or beside ``root``.
            needed: Whether videos are needed.

        Raises:
            DataError: the list is missing.
        """
        file, paths = self.list_file, videos_by_stem(root)
        folders = [Path(lists).expanduser()] if lists else [root, root.parent]
        places = [folder / file.name for folder in folders] + (folders if lists else [])
        for place in filter(Path.is_dir if file.url.endswith(".zip") else Path.is_file, places):
            return place, paths
        place = Path(lists).expanduser() if lists else places[0]
        lacking = f"{self.title} lacks its {file.title} (no '{place}')"
        unpack = " and unpack it" if file.url.endswith(".zip") else ""
        step = f"Download {file.url}{unpack} to '{place}', as `ccl data prepare` does with --yes."
        if needed and not paths:
            absent = self.absent(root)
            raise DataError(f"{lacking}. {absent.message}", f"{step}\n  {absent.hint}")
        error = ListMissing(f"{lacking}.", step)
        error.list_file, error.place = file, place
        raise error

    def absent(self, root: Path) -> DataError:
        """Make an error that says where to get the videos."""
        message = f"{self.title} lacks its videos (no listed {self.videos} in '{root}')."
        return DataError(message, self.advice.format(folder=root))


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
