"""VGGSound: 200,000 clips of ten seconds in 309 audio-visual classes.

The list comes from https://www.robots.ox.ac.uk/~vgg/data/vggsound/.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import videos_by_stem
from ccl_cli.data.sources.about import ListFile, Published, described
from ccl_cli.errors import DataError

_PUBLISHED = Published(
    "VGGSound",
    ListFile(
        "list",
        "vggsound.csv",
        "https://raw.githubusercontent.com/hche11/VGGSound/master/data/vggsound.csv",
        "git:53da0dc492b8a3fadf770f0f175cef1e652c0447",
    ),
    ("clips", "<id>_<start>.mp4"),
    "Its page says how to get the clips: https://www.robots.ox.ac.uk/~vgg/data/vggsound/. "
    "Put them into {folder}.",
    folder="vggsound",
    list_folder="vggsound",
)
_COLUMNS = "Its columns are YouTube id, start in seconds, label, train or test; there is no header."
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_START = re.compile(r"[0-9]{1,6}")
_SECONDS = 10


class _Row(NamedTuple):
    key: str
    start: int
    label: str
    split: str

    @property
    def id(self) -> str:
        return f"{self.key}_{self.start:06}"

    def file(self, paths: Mapping[str, str]) -> str | None:
        """The clip's file, by the names that common download tools use."""
        start, end = self.start, self.start + _SECONDS
        times = f"{start:06}", f"{start}", f"{start}_{end}", f"{1000 * start}_{1000 * end}"
        return next(filter(None, (paths.get(f"{self.key}_{time}") for time in times)), None)


@described("VGGSound: 200,000 clips of 309 classes of what is seen and heard.", "vggsound", _PUBLISHED)
def load(location: str, *, lists: str | None = None) -> Manifest:
    """List VGGSound. A class's index is its place in the sorted class names.

    Args:
        location: Folder of the clips, each cut to its ten seconds and named ``<id>_<start, 6 digits>.mp4``,
            in subfolders or not; "" for ``vggsound`` in the data folder. ``<id>_<start>``,
            ``<id>_<start>_<end>`` and the same in milliseconds are accepted too.
        lists: The list's file; None: ``vggsound.csv`` inside or beside the clips.

    Raises:
        DataError: clips or list are missing (the message says what to download and where to put it), or a
            line of the list is invalid.
    """
    root = Path(location).expanduser() if location else _PUBLISHED.home
    path = _PUBLISHED.find_list(root, lists)
    rows = _read(path) if path else []
    paths = videos_by_stem(root) if root.is_dir() else {}
    files = [row.file(paths) for row in rows]
    if path is None or not any(files):
        raise _PUBLISHED.absent(root, path, lists, bool(paths))
    classes = sorted({row.label for row in rows})
    labels = {name: label for label, name in enumerate(classes)}
    home = str(root.absolute())
    videos = [
        # A listed clip without a file keeps its row and counts as missing.
        Video(row.id, Path(file or f"{home}/{row.id}.mp4"), labels[row.label], row.split)
        for row, file in zip(rows, files, strict=True)
    ]
    return Manifest("vggsound", tuple(classes), videos)


def _read(path: Path) -> list[_Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            return [
                _row(path, reader.line_num, cells)
                for cells in reader
                if cells and not cells[0].startswith("#")
            ]
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is not a table of UTF-8 text: {error}.", _COLUMNS) from error


def _row(path: Path, line: int, cells: list[str]) -> _Row:
    where = f"'{path}', line {line}"
    if len(cells) != 4:
        raise DataError(f"{where}: {len(cells)} cells in place of 4.", _COLUMNS)
    key, start, label, split = (cell.strip() for cell in cells)
    if not _KEY.fullmatch(key):
        raise DataError(f"{where}: '{key}' is not a YouTube id.", _COLUMNS)
    if not _START.fullmatch(start):
        raise DataError(f"{where}: the start '{start}' is not a whole number of seconds.", _COLUMNS)
    if not label:
        raise DataError(f"{where}: the label is empty.", _COLUMNS)
    if split not in ("train", "test"):
        raise DataError(f"{where}: '{split}' is neither train nor test.", _COLUMNS)
    return _Row(key, int(start), label, split)
