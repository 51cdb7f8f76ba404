"""UCF101 and UCF51, the 51 of its classes whose videos have sound, with the official split lists.

The videos and lists come from https://www.crcv.ucf.edu/data/UCF101.php.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import videos_by_stem
from ccl_cli.data.sources.about import ListFile, ListMissing, Published, described
from ccl_cli.errors import DataError
from ccl_cli.utils.paths import data_dir

Number = Annotated[int, Field(ge=1, le=3)]
_FOLDERS = ("UCF-101", "UCF101", "ucf101")
_LISTS = "ucfTrainTestlist"
_PAGE = "https://www.crcv.ucf.edu/data/UCF101.php"
_FILES = "https://www.crcv.ucf.edu/data/UCF101"
_ARCHIVE = "UCF101TrainTestSplits-RecognitionTask.zip"
_PUBLISHED = Published(
    "UCF101",
    ListFile("split lists", _LISTS, f"{_FILES}/{_ARCHIVE}"),
    ("videos", "v_*.avi"),
    f"Download {_FILES}/UCF101.rar and unpack it, so that the videos are in {{folder}}.",
    folder=_FOLDERS[0],
    list_folder="",
)


class _Listed(NamedTuple):
    id: str  # Class/v_Class_g01_c01
    suffix: str
    split: str

    @property
    def name(self) -> str:
        return self.id.partition("/")[0]


@described("UCF101: 13,320 videos of 101 human actions.", "ucf101", _PUBLISHED)
def load_ucf101(
    location: str, *, split: Number = 1, lists: str | None = None, videos: bool = True
) -> Manifest:
    """List UCF101. A class's index is its number in the official ``classInd.txt`` minus one.

    Args:
        location: Folder of the videos, ``<class>/v_*.avi`` or flat; "" for ``UCF-101`` in the data folder.
        split: Official split, 1 to 3.
        lists: Folder of the split lists; None: ``ucfTrainTestlist`` inside or beside the videos.
        videos: Whether the videos are needed; False for teachers with precomputed embeddings.

    Raises:
        DataError: videos or lists are missing; the message says what to download and where to put it.
    """
    return _load("ucf101", location, split, lists, videos, None)


@described("UCF51: the 51 classes of UCF101 whose videos have sound.", "ucf51", _PUBLISHED)
def load_ucf51(
    location: str, *, split: Number = 1, lists: str | None = None, videos: bool = True
) -> Manifest:
    """List the 51 classes of UCF101 with sound; a class's index is its place among the 51.

    Args:
        location: Folder of the videos of UCF101, ``<class>/v_*.avi`` or flat; "" for ``UCF-101`` in the data
            folder.
        split: Official split, 1 to 3; the paper uses 1.
        lists: Folder of the split lists; None: ``ucfTrainTestlist`` inside or beside the videos.
        videos: False: the lists alone will do, as for teachers whose embeddings are precomputed.

    Raises:
        DataError: no videos or no lists; the message says what to fetch and where to put it.
    """
    names = (Path(__file__).parents[1] / "ucf51_classes.txt").read_text(encoding="utf-8").split()
    return _load("ucf51", location, split, lists, videos, frozenset(names))


def _load(
    name: str, location: str, split: int, lists: str | None, wanted: bool, classes: Collection[str] | None
) -> Manifest:
    base = Path(location).expanduser() if location else data_dir()
    root = _first_folder([*(base / folder for folder in _FOLDERS), *([base] if location else [])])
    near = [root, root.parent, base] if root else [base]
    listed_in = _first_folder([Path(lists).expanduser()] if lists else [at / _LISTS for at in near])
    if root is None and not wanted:
        root = base / _FOLDERS[0]
    if root is None or listed_in is None:
        raise _absent(base, root, listed_in, lists)
    listed = [row for row in _read_lists(listed_in, split) if classes is None or row.name in classes]
    paths = videos_by_stem(root)
    if wanted and not any(_stem(row) in paths for row in listed):
        raise _absent(root, None, listed_in, lists)
    # classInd.txt is sorted without regard to case.
    names = sorted({row.name for row in listed}, key=str.lower)
    labels = {name: label for label, name in enumerate(names)}
    flat = any(Path(path).parent == root.absolute() for path in paths.values())
    videos = []
    for row in listed:
        # A listed video without a file keeps its row and counts as missing.
        expected = root.absolute() / ((_stem(row) if flat else row.id) + row.suffix)
        path = Path(paths.get(_stem(row), expected))
        videos.append(Video(row.id, path, labels[row.name], row.split))
    return Manifest(f"{name}-split{split}", tuple(names), videos)


def _stem(row: _Listed) -> str:
    return row.id.rpartition("/")[2]


def _first_folder(candidates: list[Path]) -> Path | None:
    return next((path for path in candidates if path.is_dir()), None)


def _read_lists(folder: Path, split: int) -> Iterator[_Listed]:
    for part in ("train", "test"):
        path = folder / f"{part}list{split:02}.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(
                f"The split list '{path}' cannot be read: {error.strerror}.", f"It is in {_PAGE}."
            ) from error
        except UnicodeDecodeError as error:
            raise DataError(f"The split list '{path}' is not UTF-8 text: {error}.") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                video = Path(line.split()[0])
                if len(video.parts) != 2 or not video.suffix:
                    raise DataError(f"'{path}', line {number}: '{line.strip()}' is not <class>/<video>.avi.")
                yield _Listed(video.with_suffix("").as_posix(), video.suffix, part)


def _absent(base: Path, root: Path | None, lists: Path | None, asked: str | None) -> DataError:
    """An error that names the missing parts and the commands to download them."""
    missing, commands = [], [f"mkdir -p {shlex.quote(str(base))} && cd {shlex.quote(str(base))}"]
    if root is None:
        missing.append(f"its videos (no '{base / _FOLDERS[0]}' with v_*.avi in it)")
        commands.append(f"curl -LO {_FILES}/UCF101.rar && unrar x UCF101.rar")
    if lists is None:
        missing.append(f"its split lists (no folder '{asked or base / _LISTS}')")
        commands.append(f"curl -LO {_FILES}/{_ARCHIVE} && unzip {_ARCHIVE}")
    steps = "\n  ".join(commands)
    message, hint = f"UCF101 lacks {' and '.join(missing)}.", f"Get them from {_PAGE}:\n  {steps}"
    if root is None or lists is not None:
        return DataError(message, hint)
    place = Path(asked).expanduser() if asked else base / _LISTS
    return ListMissing(message, hint, _PUBLISHED.list_file, place)
