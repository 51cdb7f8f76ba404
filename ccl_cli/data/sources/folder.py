"""Class folders: ``root/<class>/…`` or ``root/{train,val,test}/<class>/…``; or any folder, without labels."""

from __future__ import annotations

import logging
import re
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ccl_cli.data.manifest import Manifest
from ccl_cli.data.sources import SPLIT_NAMES, SUFFIXES, Row, files_below, manifest_of, unique_ids
from ccl_cli.data.sources.about import described
from ccl_cli.errors import DataError, RecipeError

Share = Annotated[float, Field(ge=0, lt=1)]
_LAYOUT = (
    "Expected ROOT/<class>/*.mp4, or ROOT/train/<class>/*.mp4 with val and test beside train; "
    f"?labels=none takes any videos, without labels. Videos end in {', '.join(sorted(SUFFIXES))}."
)
_log = logging.getLogger("ccl")


@described(
    "Class folders: ROOT/<class>/*.mp4, with train, val and test above them if you have a split.",
    "folder:my_videos?test=0.25",
)
def load(
    location: str,
    *,
    val: Share = 0.0,
    test: Share = 0.0,
    split: Literal["random", "blocks"] = "random",
    fold: Annotated[int, Field(ge=0)] | None = None,
    folds: Annotated[int, Field(ge=2)] = 5,
    seed: Annotated[int, Field(ge=0)] = 0,
    labels: Literal["folders", "none"] = "folders",
) -> Manifest:
    """List a folder of videos. A class's index is its place in the sorted class names.

    Without a test folder all videos are training videos, unless ``val``, ``test`` or ``fold`` is given. If
    files with neighbouring names come from one recording, split by ``blocks`` or ``fold``: a random split
    would put parts of one recording on both sides.

    Args:
        location: The root folder.
        val: Share of each class's training videos held out as ``val``.
        test: Share of each class's videos held out as ``test``.
        split: Random shares, or contiguous blocks of the sorted file names.
        fold: Number of the block to test on, of ``folds`` contiguous blocks of each class.
        folds: Number of blocks.
        seed: Seed of the random split.
        labels: folders: each class has a folder; none: all videos below the folder, without labels.

    Raises:
        DataError: the folder is missing or has another layout.
        RecipeError: options contradict each other or the folder.
    """
    root = Path(location).expanduser().absolute()
    if not location or not root.is_dir():
        raise DataError(f"There is no folder '{location}'.", _LAYOUT)
    if fold is not None and (test or fold >= folds):
        raise RecipeError(f"fold={fold} needs folds above {fold}, and excludes test.")
    rows = _scan(root, labelled=labels == "folders")
    tested = (fold / folds, (fold + 1) / folds) if fold is not None else (1 - test, 1.0)
    own = {row.split for row in rows}
    if ("test" in own and tested[0] < tested[1]) or ("val" in own and val):
        raise RecipeError(f"'{root}' has its own test or val folder.", "Leave out what asks for that split.")
    at_random = seed if split == "random" and fold is None else None
    rows = _hold_out(rows, "test", *tested, seed=at_random)
    rows = _hold_out(rows, "val", 1 - val, 1.0, seed=at_random)
    manifest = manifest_of(root.name, rows)
    if len(manifest.classes) == 1:
        _log.warning("'%s' holds one class only: there is nothing to tell apart.", root)
    return manifest


def _scan(root: Path, *, labelled: bool) -> list[Row]:
    """Every video, of a class if labelled; all are for training where the folder names no splits."""
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    named = bool(folders) and all(path.name.lower() in SPLIT_NAMES for path in folders)
    depth = int(named) + int(labelled)  # folders above a video: at least so many
    files = [path.relative_to(root) for path in files_below(root)]
    videos = [path for path in files if len(path.parts) > depth and path.suffix.lower() in SUFFIXES]
    if not videos:
        raise DataError(f"'{root}' has no {'class folder with ' if labelled else ''}videos in it.", _LAYOUT)
    if len(videos) < len(files):
        _log.info("'%s': %d files are no videos of a class or split.", root, len(files) - len(videos))
    return [
        Row(
            key,
            root / path,
            path.parts[int(named)] if labelled else "",
            SPLIT_NAMES[path.parts[0].lower()] if named else "train",
        )
        for key, path in zip(unique_ids([path.as_posix() for path in videos]), videos, strict=True)
    ]


def _hold_out(rows: list[Row], split: str, begin: float, end: float, *, seed: int | None) -> list[Row]:
    """Move part of each class's training videos to another split; at least one stays."""
    by_class: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.split == "train":
            by_class[row.class_name].append(row)
    chosen: set[str] = set()
    for name, group in by_class.items():
        group.sort(key=_natural)
        low, high = round(begin * len(group)), round(end * len(group))
        if seed is not None:
            # One generator per class, so that the choice does not depend on other classes.
            rng = np.random.default_rng([seed, zlib.crc32(f"{split}/{name}".encode())])
            group = [group[index] for index in rng.permutation(len(group))]
        chosen |= {row.id for row in group[low:high][: len(group) - 1]}
    return [row._replace(split=split) if row.id in chosen else row for row in rows]


def _natural(row: Row) -> list[tuple[int, str]]:
    """Sort key by which 10 follows 9."""
    parts = re.split(r"(\d+)", row.path.as_posix())
    return [(int(part) if part.isdecimal() else 0, part) for part in parts]
