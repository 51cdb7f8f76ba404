"""Which videos are set aside together, chosen by a hash and not by the order of the list."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ccl_cli.data.manifest.columns import UNLABELLED
from ccl_cli.data.manifest.videos import Videos

_GROUPED = re.compile(r"(.*_g\d+)_c\d+")  # UCF101: clips of one group were cut from one video
_Named = tuple[str, int]  # an id and its place in the list


def choose_share(videos: Videos, share: float, seed: int) -> NDArray[np.bool_]:
    """[n] about a share of each class's videos, and of the unlabelled ones, in whole groups.

    A group consists of the segments of one file, or of the videos of one group where ids name it
    (``v_Biking_g07_c03``). Never all groups of a class are chosen, and never none of several.
    """
    by_class: defaultdict[int, dict[str, list[_Named]]] = defaultdict(lambda: defaultdict(list))
    rows = zip(videos.ids, videos.numbers.tolist(), videos.column("label").tolist(), strict=True)
    for place, (name, row, label) in enumerate(rows):
        numbered = _GROUPED.fullmatch(name)
        group = numbered[1] if numbered else videos.columns.path[row]
        by_class[label][group].append((name, place))
    chosen = np.zeros(len(videos), np.bool_)
    for groups in by_class.values():
        chosen[[place for _, place in _share_of(list(groups.values()), share, seed)]] = True
    return chosen


def choose_labels(videos: Videos, per_class: int, seed: int) -> NDArray[np.bool_]:
    """[n] so many labelled videos of each class."""
    labels = videos.column("label").tolist()
    named = sorted(enumerate(videos.ids), key=lambda each: place_of(seed, each[1]))
    counts: Counter[int] = Counter()
    chosen = np.zeros(len(videos), np.bool_)
    for place, _ in named:
        label = labels[place]
        if label != UNLABELLED and counts[label] < per_class:
            counts[label] += 1
            chosen[place] = True
    return chosen


def place_of(seed: int, name: str) -> bytes:
    """Where a name stands in an order that is random, and the same everywhere."""
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


def _share_of(groups: list[list[_Named]], share: float, seed: int) -> list[_Named]:
    """Whole groups, about that share of all videos."""
    # Ordered by a hash: the choice depends neither on the source's order nor on where the files lie.
    groups = sorted(groups, key=lambda videos: place_of(seed, min(videos)[0]))
    wanted = share * sum(map(len, groups))
    chosen: list[list[_Named]] = []
    count = 0
    for videos in groups[:-1]:
        if chosen and count + len(videos) / 2 > wanted:
            break
        chosen.append(videos)
        count += len(videos)
    return list(chain.from_iterable(chosen))
