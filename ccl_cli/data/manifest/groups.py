"""Choice of held-out and of labelled videos, by a hash of ids and not by the order of the list."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from ccl_cli.data.manifest.columns import UNLABELLED
from ccl_cli.data.manifest.videos import Videos

_GROUPED = re.compile(r"(.*_g\d+)_c\d+")  # in UCF101, clips of one group come from one video


def choose_share(videos: Videos, share: float, seed: int) -> NDArray[np.bool_]:
    """[n] mask of about a share of each class's videos, and of unlabelled ones, in whole groups.

    A group consists of the segments of one file, or of the videos of one UCF101 group (``v_Biking_g07_c03``).
    At least one group of a class is chosen if there are several, and never all.
    """
    ids, paths = videos.ids, videos.texts("path")
    by_class: defaultdict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, label in enumerate(videos.column("label").tolist()):
        numbered = _GROUPED.fullmatch(ids[place])
        by_class[label][numbered[1] if numbered else paths[place]].append(place)
    chosen = np.zeros(len(videos), np.bool_)
    for groups in by_class.values():
        # By a hash, so that the choice depends neither on the order nor on the paths.
        ordered = sorted(groups.values(), key=lambda group: place_of(seed, min(ids[at] for at in group)))
        chosen[_first_groups(ordered, share)] = True
    return chosen


def choose_labels(videos: Videos, per_class: int, seed: int) -> NDArray[np.bool_]:
    """[n] mask of ``per_class`` labelled videos of each class."""
    labels, ids = videos.column("label").tolist(), videos.ids
    counts: Counter[int] = Counter()
    chosen = np.zeros(len(videos), np.bool_)
    for place in sorted(range(len(ids)), key=lambda place: place_of(seed, ids[place])):
        label = labels[place]
        if label != UNLABELLED and counts[label] < per_class:
            counts[label] += 1
            chosen[place] = True
    return chosen


def place_of(seed: int, name: str) -> bytes:
    """Sort key of a name, for an order that is random and the same on every machine."""
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


def _first_groups(groups: list[list[int]], share: float) -> list[int]:
    wanted = share * sum(map(len, groups))
    chosen: list[int] = []
    for group in groups[:-1]:
        if chosen and len(chosen) + len(group) / 2 > wanted:
            break
        chosen += group
    return chosen
