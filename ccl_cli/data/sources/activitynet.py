"""ActivityNet v1.3: videos of 200 activities; the official validation subset is the test split.

The annotations of the testing subset were never published, so it is not used.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import Row, manifest_of
from ccl_cli.data.sources.about import ListFile, Published, described
from ccl_cli.errors import DataError

_LIST = "activity_net.v1-3.min.json"
_LIST_URL = f"https://raw.githubusercontent.com/activitynet/ActivityNet/master/Evaluation/data/{_LIST}"
_PUBLISHED = Published(
    "ActivityNet",
    ListFile("annotations", _LIST, _LIST_URL, "git:b0a5a827f7931156dacf1cfe223aa535e8fe673c"),
    "v_<id>.mp4",
    "Ask for the videos on http://activity-net.org/download.html and unpack them in {folder}.",
    folder="activitynet",
)
_SPLITS = {"training": "train", "validation": "test"}
# A few segments of the official file last no time or a hundredth of a second.
_SHORTEST = 0.1  # seconds
_log = logging.getLogger("ccl")

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Segment = tuple[str, str, float | None, float | None]  # id, class, start, end


class _Annotation(BaseModel):
    label: Annotated[str, Field(min_length=1)]
    segment: tuple[Seconds, Seconds]

    @property
    def length(self) -> float:
        return self.segment[1] - self.segment[0]


class _Entry(BaseModel):
    subset: Literal["training", "validation", "testing"]
    annotations: list[_Annotation] = []


class _File(BaseModel):
    database: dict[Key, _Entry]


@described("ActivityNet v1.3: untrimmed videos of 200 activities.", "activitynet", _PUBLISHED)
def load(
    location: str, *, segments: Literal["trimmed", "whole"] = "whole", lists: str | None = None
) -> Manifest:
    """List ActivityNet. A class's index is its place in the sorted class names.

    Args:
        location: Folder of the videos, ``v_<id>.mp4`` or ``<id>.mp4``, in subfolders or not; "" for
            ``activitynet`` in the data folder.
        segments: ``whole``: one row per video, labelled with the class that is shown longest, as in the
            paper; ``trimmed``: one row per annotated segment.
        lists: The annotations' file; None: ``activity_net.v1-3.min.json`` inside or beside the videos.

    Raises:
        DataError: videos or annotations are missing (the message says where to get them), or the annotations
            are invalid.
    """
    root = Path(location).expanduser() if location else _PUBLISHED.home
    path, paths = _PUBLISHED.find(root, lists)
    listed = {f"v_{key}": entry for key, entry in _read(path).items() if entry.subset in _SPLITS}
    files = {name: paths.get(name) or paths.get(name[2:]) for name in listed}
    if not any(files.values()):
        raise _PUBLISHED.absent(root)
    segments_of = _trimmed if segments == "trimmed" else _whole
    rows = []
    for name, entry in listed.items():
        # A listed video without a file keeps its row and counts as missing.
        file = Path(files[name] or root.absolute() / f"{name}.mp4")
        for key, label, start, end in segments_of(name, entry.annotations):
            rows.append(Row(key, file, label, _SPLITS[entry.subset], start, end))
    every = [each for entry in listed.values() for each in entry.annotations]
    left_out = (len(every) if segments == "trimmed" else len(listed)) - len(rows)
    if left_out:
        _log.info("ActivityNet: %d videos or segments without a class or a length are left out.", left_out)
    name = "activitynet" if segments == "whole" else f"activitynet-{segments}"
    return manifest_of(name, rows, sorted({each.label for each in every}))


def _whole(name: str, annotations: list[_Annotation]) -> Iterator[_Segment]:
    shown: dict[str, float] = defaultdict(float)
    for each in annotations:
        shown[each.label] += each.length
    if shown:
        yield name, max(shown, key=lambda label: shown[label]), None, None


def _trimmed(name: str, annotations: list[_Annotation]) -> Iterator[_Segment]:
    for number, each in enumerate(annotations):
        if each.length >= _SHORTEST:
            yield f"{name}_{number}", each.label, *each.segment


def _read(path: Path) -> dict[str, _Entry]:
    try:
        return _File.model_validate_json(path.read_bytes()).database
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(str(part) for part in wrong["loc"] if part != "[key]")
        raise DataError(f"'{path}': {where}: {wrong['msg']}.", f"The official file: {_LIST_URL}") from error
