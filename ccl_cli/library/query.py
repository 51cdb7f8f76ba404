"""Nearest-neighbour search in a library: exactly, block by block, or approximately."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccl_cli.data.video_paths import VideoFiles
from ccl_cli.deploy.predict import predict_files
from ccl_cli.errors import DataError
from ccl_cli.evaluation.metrics import directions, score_blocks
from ccl_cli.evaluation.model import load_student
from ccl_cli.library import approximate
from ccl_cli.library.index import own_model
from ccl_cli.library.store import Library, open_library, stamp_of

_SCORES_AT_ONCE = 2**22
_OWN_PATHS = 2  # the query's own file may be stored under two paths, with and without links


@dataclass(frozen=True)
class Hit:
    """A search result.

    Attributes:
        path: Absolute path of the file.
        cosine: Cosine similarity, in [-1, 1].
    """

    path: str
    cosine: float


@dataclass(frozen=True)
class Answer:
    """The results of a query.

    Attributes:
        query: Path as given by the user.
        hits: Results, nearest first.
        fault: Reason why the query could not be read, or None.
    """

    query: str
    hits: tuple[Hit, ...] = ()
    fault: str | None = None


def search(
    raw: VideoFiles,
    folder: str | Path,
    *,
    top: int,
    include_self: bool = False,
    model: str | Path | None = None,
    nprobe: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
) -> list[Answer]:
    """Find the nearest videos of a library by cosine similarity.

    Queries that are unchanged in the library are not read again. Memory holds the queries and one block of
    the library.

    Args:
        raw: Query videos.
        folder: Folder of the library.
        top: Number of results per query.
        include_self: Include the query's own file in its results.
        model: Run folder or model file. Default: the library's model.
        nprobe: Number of inverted lists for approximate search; None for exact search.
        batch_size: Windows per forward pass; default the recipe's.
        workers: Decoding processes; default as for :func:`ccl_cli.deploy.predict.predict_files`.

    Returns:
        One answer per query, in order.

    Raises:
        DataError: the library does not exist, is empty or damaged, or its model is missing.
        UsageError: the given model differs from the library's.
    """
    folder = Path(folder)
    with open_library(folder) as library:
        if not len(library):
            raise DataError(f"The library '{folder}' has no videos.", "Add some with ccl index.")
        settings = {"batch_size": batch_size, "workers": workers}
        vectors, faults = _vectors(raw, library, folder, Path(model) if model else None, settings)
        array = np.array([vectors[row] for row in sorted(vectors)], np.float32)
        queries, _ = directions(torch.from_numpy(array.reshape(-1, library.about.dim)))
        count = min(top + (0 if include_self else _OWN_PATHS), len(library))
        if nprobe is None:
            cosines, numbers = nearest(library, queries, count)
        else:
            cosines, numbers = approximate.search(library, folder, queries.numpy(), count, nprobe)
        paths = library.paths(numbers.ravel().tolist())
    answers = {row: Answer(raw.names[row], fault=fault) for row, fault in faults.items()}
    for row, *result in zip(sorted(vectors), cosines.tolist(), numbers.tolist(), strict=True):
        hits = [Hit(paths[number], cosine) for cosine, number in zip(*result, strict=True) if number in paths]
        answers[row] = Answer(raw.names[row], _best_hits(raw.names[row], hits, top, include_self))
    return [answers[row] for row in range(len(raw.videos))]


def nearest(library: Library, queries: Tensor, top: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return cosines and ids of the nearest videos of a library, nearest first.

    Shapes: queries: [Q, D], unit length. returns: [Q, top] each; top is at most the number of videos.
    """
    best = torch.full((len(queries), top), -torch.inf)
    numbers = torch.full((len(queries), top), -1)
    for block, vectors in library.blocks():
        of_block, gallery = torch.from_numpy(block), torch.tensor(vectors)
        for rows, scores in score_blocks(queries, gallery, _SCORES_AT_ONCE):
            cosines, places = scores.topk(min(top, len(block)), dim=1)
            candidates = torch.cat([best[rows], cosines], dim=1)
            best[rows], chosen = candidates.topk(top, dim=1)
            numbers[rows] = torch.cat([numbers[rows], of_block[places]], dim=1).gather(1, chosen)
    return best.numpy(), numbers.numpy()


def _vectors(
    raw: VideoFiles, library: Library, folder: Path, model: Path | None, settings: dict[str, Any]
) -> tuple[dict[int, NDArray[np.float32]], dict[int, str]]:
    """Return vectors by row, from the library if unchanged, and the reasons for unreadable queries."""
    path = own_model(library, folder, model) if model else None
    vectors, faults, unknown = {}, {}, []
    for row, name in enumerate(raw.names):
        stored = library.find(os.path.abspath(name))  # noqa: PTH100  (links stay as they are)
        if stored and stored[0] == stamp_of(name):
            vectors[row] = stored[1]
        else:
            unknown.append(row)
    if unknown:
        student = load_student(path or own_model(library, folder, None))
        videos = [raw.videos[row] for row in unknown]
        with closing(predict_files(student, videos, title="queries", **settings)) as predictions:
            for each in predictions:
                if each.fault is None:
                    vectors[unknown[each.row]] = each.feature.numpy()
                else:
                    faults[unknown[each.row]] = each.fault
    return vectors, faults


def _best_hits(query: str, hits: Sequence[Hit], top: int, include_self: bool) -> tuple[Hit, ...]:
    own = set() if include_self else {os.path.abspath(query), os.path.realpath(query)}  # noqa: PTH100
    ordered = sorted(hits, key=lambda hit: (-hit.cosine, hit.path))
    return tuple(hit for hit in ordered if hit.path not in own)[:top]
