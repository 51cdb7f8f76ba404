"""A manifest as readable JSON lines: a header, then one line per video."""

from __future__ import annotations

import json
import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ccl_cli.data.manifest.columns import (
    SPLITS,
    UNLABELLED,
    Columns,
    ColumnsBuilder,
    Video,
    located,
    location_text,
    path_text,
)
from ccl_cli.data.manifest.videos import Videos
from ccl_cli.data.video.storage import from_plain, to_plain
from ccl_cli.errors import DataError
from ccl_cli.utils import json_text
from ccl_cli.utils.files import atomic_path

FORMAT = "ccl-manifest-1"
_CHUNK = 1000  # lines that are parsed as one array, faster than line by line
_MISSING = re.compile(r"required positional arguments?: '(\w+)'")


def write_lines(path: Path, videos: Videos, header: Mapping[str, Any], root: str = "") -> None:
    """Write a manifest, atomically.

    Args:
        path: Output file.
        videos: Rows.
        header: First line.
        root: Paths below this folder are written relative to it.

    Raises:
        OSError: the file cannot be written.
    """
    header = dict(header) | ({"root": root} if root else {})
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n")
        file.writelines(json.dumps(row) + "\n" for row in _rows(videos, root))


def read_lines(path: Path, root: Path | str | None = None) -> tuple[Columns, dict[str, Any]]:
    """Read rows as columns, and the header.

    Args:
        path: The file.
        root: Folder of relative paths; None: that of the header, or else that of the manifest.

    Raises:
        DataError: the file is missing, truncated or not a manifest, or a row is invalid.
    """
    try:
        with path.open(encoding="utf-8") as file:
            header = parse_header(file.readline())
            base = str(path.absolute().parent / (root or header.get("root", "")))
            builder = ColumnsBuilder(base)
            checked = _checked(_parsed(file), path, len(header["classes"]), base)
            while rows := list(islice(checked, _CHUNK)):
                builder.extend(*zip(*rows, strict=True))
        columns = builder.finish()
        if len(columns) != header["videos"]:
            raise ValueError("missing rows")
    except OSError as error:
        raise DataError(f"The manifest '{path}' cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{path}' is not a complete manifest.", "Write it again.") from error
    return columns, header


def parse_header(text: str | bytes) -> dict[str, Any]:
    """Parse a header, with ``name``, ``classes``, the number of ``videos`` and more.

    Raises:
        ValueError, KeyError, TypeError: the text is not a header of this version.
    """
    header = dict(json_text.parse(text))
    if header["format"] != FORMAT:
        raise ValueError("unknown format")
    own = {"name": str(header["name"]), "classes": tuple(map(str, header["classes"]))}
    return header | own | {"videos": int(header["videos"])}


def fault(video: Video, classes: int) -> str | None:
    """What is wrong with the values of a row from a file, except its path; None: nothing."""
    if not (isinstance(video.id, str) and video.id):
        return "the id must be a text"
    if video.split not in SPLITS:
        return f"unknown split {video.split!r}, known are {', '.join(SPLITS)}"
    if video.label is not None and (type(video.label) is not int or not 0 <= video.label < classes):
        return f"the label {video.label!r} is not one of the {classes} classes"
    for name, at in ("start", video.start), ("end", video.end):
        if at is not None and (type(at) not in (int, float) or not 0 <= at < math.inf):
            return f"the {name} {at!r} is not a number of seconds"
    if video.end is not None and video.end <= (video.start or 0):
        return f"the segment ends at {video.end:g} s, before it begins"
    return None


def _rows(videos: Videos, root: str) -> Iterator[dict[str, Any]]:
    base, prefix = videos.columns.root, os.path.join(root, "")  # noqa: PTH118
    numbers = (videos.column(name).tolist() for name in ("label", "split", "start", "end"))
    for name, text, label, split, *segment in zip(videos.ids, videos.texts("path"), *numbers, strict=True):
        packed = text.startswith("{")
        path = to_plain(located(base, text)) if packed else posixpath.join(base, text).removeprefix(prefix)
        row = {"id": name, "path": path, "label": None if label == UNLABELLED else label}
        times = {key: at for key, at in zip(("start", "end"), segment, strict=True) if not math.isnan(at)}
        yield row | {"split": SPLITS[split]} | times


def _parsed(file: IO[str]) -> Iterator[Any]:
    while lines := list(islice(file, _CHUNK)):
        rows = json_text.parse(f"[{','.join(lines)}]")
        if len(rows) != len(lines):
            raise ValueError("not one row in each line")
        yield from rows


def _checked(rows: Iterator[Any], path: Path, classes: int, root: str) -> Iterator[tuple[Any, ...]]:
    """Check rows and yield their values in the order of the columns."""
    for line, row in enumerate(rows, 2):
        try:
            video = Video(**row)
            if wrong := fault(video, classes):
                raise ValueError(wrong)
            place = _path(video.path, root)
        except (TypeError, ValueError) as error:
            missing = _MISSING.search(str(error))
            reason = f"there is no {missing[1]}" if missing else error
            raise DataError(f"'{path}', line {line}: {reason}.", "Correct it or write it again.") from error
        yield video.id, place, video.label, video.split, video.start, video.end


def _path(path: Any, root: str) -> str:
    """Convert the path of a row to the text in its column."""
    if isinstance(path, dict) and path:
        return location_text(from_plain(path))
    if not (isinstance(path, str) and path):
        raise ValueError("the path must be a text, or say where in a shard")
    if ".." in path:
        located(root, path)  # raises if it leaves the root
    return path_text(path)
