"""What a data source says of itself: what to type, and where a published set is to be had."""

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
        title: What it is called, for example "annotations".
        name: Its file name; of a zip archive, the folder that is in it.
        url: Where it can be downloaded.
        checksum: As in :func:`ccl_cli.utils.download.fault`; None where none is known.
    """

    title: str
    name: str
    url: str
    checksum: str | None = None


class ListMissing(DataError):
    """The videos are there, but not the list, which can be fetched."""

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
    """Where a data set comes from that is published as a list, with its videos to be had elsewhere.

    Attributes:
        title: Of the data set.
        list_file: Its list.
        videos: What its videos are called, and their files.
        advice: How to get these; ``{folder}`` is where they belong.
        folder: Where that is, below the data folder.
        list_folder: Where the list belongs, below the data folder.
    """

    title: str
    list_file: ListFile
    videos: tuple[str, str]
    advice: str
    folder: str
    list_folder: str

    @property
    def home(self) -> Path:
        """Where its videos belong, unless the user names another folder."""
        return data_dir() / self.folder

    @property
    def list_place(self) -> Path:
        """Where its list belongs, likewise."""
        return data_dir() / self.list_folder / self.list_file.name

    def find_list(self, root: Path, given: str | None) -> Path | None:
        """The list a user named, itself or in a folder, else the one inside or beside the videos."""
        folders = [Path(given).expanduser()] if given else [root, root.parent]
        places = [place for folder in folders for place in (folder, folder / self.list_file.name)]
        return next((place for place in places if place.is_file()), None)

    def absent(self, root: Path, list_file: Path | None, given: str | None, other_videos: bool) -> DataError:
        """What is missing in ``root`` and where to get it.

        Args:
            root: Where the videos belong.
            list_file: The list, if it is there.
            given: Where the user said it is.
            other_videos: Whether ``root`` holds videos, of which we do not know whether they are listed.
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
    """What ``ccl data ls`` shows.

    Attributes:
        text: What the source is, in one line.
        example: A data set to type after ``--data``; "" where the source tells none.
        published: Where list and videos are to be had, for a published set.
    """

    text: str
    example: str = ""
    published: Published | None = None


def described(text: str, example: str, published: Published | None = None) -> Callable[[Source], Source]:
    """Let a source say of itself what :class:`About` holds."""

    def mark(source: Source) -> Source:
        source.about = About(text, example, published)  # type: ignore[attr-defined]
        return source

    return mark


def about(source: Callable[..., Any]) -> About:
    """What a source says of itself, else the first line of its docstring."""
    about = getattr(source, "about", None)
    if isinstance(about, About):
        return about
    return About((inspect.getdoc(source) or "").partition("\n")[0] or "It does not say what it is.")
