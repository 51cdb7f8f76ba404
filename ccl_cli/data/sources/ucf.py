"""UCF101 and UCF51, the 51 of its classes whose videos have sound, with the official split lists.

The videos and lists come from https://www.crcv.ucf.edu/data/UCF101.php.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import Row, manifest_of
from ccl_cli.data.sources.about import ListFile, Published, described
from ccl_cli.errors import DataError
from ccl_cli.utils.paths import data_dir

Number = Annotated[int, Field(ge=1, le=3)]
_FOLDERS = ("UCF-101", "UCF101", "ucf101")
_FILES = "https://www.crcv.ucf.edu/data/UCF101"
_LISTS = f"{_FILES}/UCF101TrainTestSplits-RecognitionTask.zip"
_PUBLISHED = Published(
    "UCF101",
    ListFile("split lists", "ucfTrainTestlist", _LISTS),
    "v_*.avi",
    f"Download {_FILES}/UCF101.rar and unpack it, so that the videos are in {{folder}}.",
    folder=_FOLDERS[0],
)


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
        DataError: videos or lists are missing; the message says where to get them.
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
        videos: Whether the videos are needed; False for teachers with precomputed embeddings.

    Raises:
        DataError: videos or lists are missing; the message says where to get them.
    """
    names = (Path(__file__).parents[1] / "ucf51_classes.txt").read_text(encoding="utf-8").split()
    return _load("ucf51", location, split, lists, videos, names)


def _load(
    name: str, location: str, split: int, lists: str | None, needed: bool, classes: Collection[str] | None
) -> Manifest:
    base = Path(location).expanduser() if location else data_dir()
    default = base if location else base / _FOLDERS[0]
    root = next((path for folder in _FOLDERS if (path := base / folder).is_dir()), default)
    list_folder, paths = _PUBLISHED.find(root, lists, needed)
    listed = [row for row in _read_lists(list_folder, split) if classes is None or row.class_name in classes]
    if needed and not any(row.path.stem in paths for row in listed):
        raise _PUBLISHED.absent(root)
    flat = any(Path(path).parent == root.absolute() for path in paths.values())
    rows = []
    for row in listed:
        # A listed video without a file keeps its row and counts as missing.
        expected = root.absolute() / (row.path.name if flat else row.path)
        rows.append(row._replace(path=Path(paths.get(row.path.stem, expected))))
    # classInd.txt is sorted without regard to case.
    return manifest_of(f"{name}-split{split}", rows, sorted({row.class_name for row in rows}, key=str.lower))


def _read_lists(folder: Path, split: int) -> Iterator[Row]:
    """Rows with the paths in the lists, ``<class>/<video>.avi``."""
    for part in ("train", "test"):
        path = folder / f"{part}list{split:02}.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"The split list '{path}' cannot be read: {error}.", f"It is in {_LISTS}."
            ) from error
        for line in filter(str.strip, lines):
            video = Path(line.split()[0])
            if len(video.parts) != 2 or not video.suffix:
                raise DataError(f"'{path}': '{line.strip()}' is not <class>/<video>.avi.", f"See {_LISTS}.")
            yield Row(video.with_suffix("").as_posix(), video, video.parts[0], part)
