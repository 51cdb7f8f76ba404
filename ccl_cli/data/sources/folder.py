"""Class folders: ``root/<class>/…`` or ``root/{train,val,test}/<class>/…``; or any folder, without labels."""

from __future__ import annotations

import logging
import re
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import SPLIT_NAMES, SUFFIXES, files_below, unique_ids
from ccl_cli.data.sources.about import described
from ccl_cli.errors import DataError, RecipeError

Share = Annotated[float, Field(ge=0, lt=1)]
_LAYOUT = (
    "Expected ROOT/<class>/*.mp4, or ROOT/train/<class>/*.mp4 with val and test beside train; "
    "?labels=none takes any videos, without labels."
)
_log = logging.getLogger("ccl")


@dataclass
class _Row:
    path: Path
    name: str  # class name; "" without labels
    split: str


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
        raise DataError(f"There is no folder '{location}'." if location else "No folder is named.", _LAYOUT)
    if fold is not None and (test or fold >= folds):
        raise RecipeError(
            f"fold={fold} and test={test:g} cannot be: give test, or a fold below folds={folds}."
        )
    rows = _scan(root, labelled=labels == "folders")
    tested = (fold / folds, (fold + 1) / folds) if fold is not None else (1 - test, 1.0)
    for name, share in ("test", tested[1] - tested[0]), ("val", val):
        if share and any(row.split == name for row in rows):
            raise RecipeError(
                f"'{root}' has its own {name} folder.", f"Leave out what asks for a {name} split."
            )
    at_random = split == "random" and fold is None
    _hold_out(rows, "test", *tested, seed=seed if at_random else None)
    _hold_out(rows, "val", 1 - val, 1.0, seed=seed if at_random else None)
    classes = tuple(sorted({row.name for row in rows} - {""}))
    if len(classes) == 1:
        _log.warning("'%s' holds one class only, '%s': there is nothing to tell apart.", root, classes[0])
    label_of = {name: label for label, name in enumerate(classes)}
    ids = unique_ids([row.path.relative_to(root).as_posix() for row in rows])
    videos = (
        Video(key, row.path, label_of.get(row.name), row.split) for key, row in zip(ids, rows, strict=True)
    )
    return Manifest(root.name, classes, videos)


def _scan(root: Path, *, labelled: bool) -> list[_Row]:
    """Every video, of a class if labelled; all are for training where the folder names no splits."""
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    named = bool(folders) and all(path.name.lower() in SPLIT_NAMES for path in folders)
    splits, depth = int(named), int(named) + int(labelled)  # folders above a video: at least so many
    rows, others = [], Counter[str]()
    for path in files_below(root):
        parts = path.relative_to(root).parts
        if len(parts) > depth and path.suffix.lower() in SUFFIXES:
            split = SPLIT_NAMES[parts[0].lower()] if named else "train"
            rows.append(_Row(path, parts[splits] if labelled else "", split))
        else:
            others[path.suffix.lower() or "no suffix"] += 1
    if not rows and labelled:
        raise DataError(f"'{root}' has no class folder with videos in it.", _LAYOUT)
    if not rows:
        raise DataError(f"'{root}' has no videos in it.", f"Videos end in {', '.join(sorted(SUFFIXES))}.")
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        what = "videos of a class" if labelled else "videos"
        _log.info("'%s': %d files are not %s (%s).", root, others.total(), what, kinds)
    return rows


def _hold_out(rows: list[_Row], split: str, begin: float, end: float, *, seed: int | None) -> None:
    """Move part of each class's training videos to another split; at least one stays."""
    by_class: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        if row.split == "train":
            by_class[row.name].append(row)
    for name, group in by_class.items():
        group.sort(key=_natural)
        low, high = round(begin * len(group)), round(end * len(group))
        if seed is not None:
            # One generator per class, so that the choice does not depend on other classes.
            rng = np.random.default_rng([seed, zlib.crc32(f"{split}/{name}".encode())])
            group = [group[index] for index in rng.permutation(len(group))]
        for row in group[low:high][: len(group) - 1]:
            row.split = split


def _natural(row: _Row) -> list[tuple[int, str]]:
    """Sort key by which 10 follows 9."""
    return [
        (int(part or 0) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", row.path.as_posix())
    ]
