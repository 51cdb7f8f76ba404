"""A manifest as readable JSON lines: a header, then one line per video."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ccl_cli.data.manifest.columns import SPLITS, UNLABELLED, Columns, ColumnsBuilder, Video
from ccl_cli.data.manifest.videos import Videos
from ccl_cli.data.video.storage import from_plain, is_url
from ccl_cli.errors import DataError
from ccl_cli.utils import json_text
from ccl_cli.utils.files import atomic_path

FORMAT = "ccl-manifest-1"
_CHUNK = 1000  # lines that are parsed as one array, faster than line by line


def write_lines(path: Path, videos: Videos, header: Mapping[str, Any]) -> None:
    """Write a header and rows, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n")
        file.writelines(json.dumps(row) + "\n" for row in _rows(videos))


def read_lines(path: Path, root: Path | str | None = None) -> tuple[Columns, dict[str, Any]]:
    """Read rows as columns, and the header; ``root`` as in :func:`base_folder`.

    Raises:
        DataError: the file is missing, truncated or not a manifest, or a row is invalid.
    """
    try:
        with path.open(encoding="utf-8") as file:
            header = parse_header(file.readline())
            builder = ColumnsBuilder(base_folder(path, root, header))
            while lines := list(islice(file, _CHUNK)):
                builder.add([_video(row) for row in json_text.parse(f"[{','.join(lines)}]")])
        columns = builder.finish()
        if len(columns) != header["videos"]:
            raise ValueError(f"{len(columns)} of {header['videos']} rows")
    except OSError as error:
        raise DataError(f"The manifest '{path}' cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"'{path}' is not a complete manifest: {error}.", "Write it again.") from error
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


def base_folder(path: Path, root: Path | str | None, header: Mapping[str, Any]) -> str:
    """Folder or URL of relative paths: ``root``, or that of the header, or the folder of the manifest."""
    base = root or header.get("root", "")
    return base if isinstance(base, str) and is_url(base) else str(path.absolute().parent / base)


def _rows(videos: Videos) -> Iterator[dict[str, Any]]:
    numbers = (videos.column(name).tolist() for name in ("label", "split", "start", "end"))
    for name, text, label, split, *segment in zip(videos.ids, videos.texts("path"), *numbers, strict=True):
        path = json.loads(text) if text.startswith("{") else text
        row = {"id": name, "path": path, "label": None if label == UNLABELLED else label}
        times = {key: at for key, at in zip(("start", "end"), segment, strict=True) if not math.isnan(at)}
        yield row | {"split": SPLITS[split]} | times


def _video(row: dict[str, Any]) -> Video:
    if isinstance(row.get("path"), dict):  # a place in a shard
        row["path"] = from_plain(row["path"])
    return Video(**row)
