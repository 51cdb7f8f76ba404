"""VGGSound: 200,000 clips of ten seconds in 309 audio-visual classes.

The list comes from https://www.robots.ox.ac.uk/~vgg/data/vggsound/.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import Row, manifest_of
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
    "<id>_<start>.mp4",
    "Its page says how to get the clips: https://www.robots.ox.ac.uk/~vgg/data/vggsound/. "
    "Put them into {folder}.",
    folder="vggsound",
)
_COLUMNS = "Its columns are YouTube id, start in seconds, label, train or test; there is no header."
_SECONDS = 10


class _Listed(NamedTuple):
    key: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9_-]+$")]
    start: Annotated[int, Field(ge=0, lt=10**6)]
    label: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    split: Literal["train", "test"]

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
        DataError: clips or list are missing (the message says where to get them), or a row of the list is
            invalid.
    """
    root = Path(location).expanduser() if location else _PUBLISHED.home
    path, paths = _PUBLISHED.find(root, lists)
    listed = _read(path)
    files = [each.file(paths) for each in listed]
    if not any(files):
        raise _PUBLISHED.absent(root)
    home = str(root.absolute())
    rows = (
        # A listed clip without a file keeps its row and counts as missing.
        Row(each.id, Path(file or f"{home}/{each.id}.mp4"), each.label, each.split)
        for each, file in zip(listed, files, strict=True)
    )
    return manifest_of("vggsound", rows)


def _read(path: Path) -> list[_Listed]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            rows = [cells for cells in reader if cells and not cells[0].startswith("#")]
        return TypeAdapter(list[_Listed]).validate_python(rows)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        row = ",".join(rows[int(wrong["loc"][0])])
        raise DataError(f"'{path}': '{row}': {wrong['msg']}.", _COLUMNS) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is not a table of UTF-8 text: {error}.", _COLUMNS) from error
