"""Recognition and retrieval figures from per-video scores and features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_SCORES_AT_ONCE = 2**26  # with fewer the product is slower
_COLUMNS = 2048  # gallery items per product: with more, what comes out no longer fits the processor's cache
_ROWS = 64  # queries per product from which on it is worth its preparations
_CELLS = 2**16
_TINY = np.float32(1e-30)


def recognition(scores: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, object]:
    """Video-level recognition, in percent; a video without scores counts as an error.

    Shapes:
        scores: [V, K] one row per video; a row that is not finite stands for a video that could not be read.
        labels: [V] int64.

    Returns:
        ``top1``, ``top5``, ``mean_class`` (mean of the classes' own top-1) and ``per_class``.
    """
    read = torch.isfinite(scores).all(dim=1)
    own = scores.gather(1, labels[:, None])
    # Counted: to sort 5,000 classes would take most of the time. Of equal scores the earlier comes first.
    before = (scores > own) | ((scores == own) & (torch.arange(scores.shape[1]) < labels[:, None]))
    places = before.sum(dim=1)
    first = ((places == 0) & read).double()
    per_class = {}
    for label, name in enumerate(classes):
        own = labels == label
        if own.any():
            per_class[name] = {"top1": _percent(first[own].mean()), "videos": int(own.sum())}
    means = [row["top1"] for row in per_class.values()]
    return {
        "top1": _percent(first.mean()),
        "top5": _percent(((places < 5) & read).double().mean()),
        "mean_class": sum(means) / len(means),
        "per_class": per_class,
    }


def retrieval(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    scores_at_once: int = _SCORES_AT_ONCE,
) -> dict[str, float]:
    """Cosine retrieval, in percent: an item of the query's class among the first K; mean average precision.

    A query without a feature (a row that is not finite) counts as an error in every figure; a gallery item
    without one cannot be found, so it is left out. Of items with equal scores the earlier one comes first.

    Besides its arguments it holds a copy of the features and ``scores_at_once`` scores, or those of one
    query.

    Shapes:
        queries: [Q, D] features of the test videos.
        query_labels: [Q] int64.
        gallery: [G, D] features of the training videos.
        gallery_labels: [G] int64.
    """
    directed, finite = directions(queries)
    gallery, in_gallery = directions(gallery)
    labels, query_classes = gallery_labels[in_gallery].numpy(), query_labels[finite].numpy()
    sums = np.zeros(4)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for block, scores in score_blocks(directed, gallery, scores_at_once):
            sums += sum(
                pool.map(
                    lambda row, label: _figures(row, labels == label), scores.numpy(), query_classes[block]
                )
            )
    r1, r5, r10, average_precision = (100 * sums / max(len(queries), 1)).tolist()
    return {"r1": r1, "r5": r5, "r10": r10, "map": average_precision}


def directions(features: Tensor) -> tuple[Tensor, Tensor]:
    """What retrieval compares: the rows that are finite, scaled to unit length; and which ones they are.

    Shapes:
        features: [N, D].
        returns: [n, D]; [N] bool.
    """
    length = torch.linalg.vector_norm(features, dim=1)
    finite = length.isfinite()
    return features[finite].div_(length[finite, None].clamp(min=1e-12)), finite


def score_blocks(
    queries: Tensor, gallery: Tensor, scores_at_once: int = _SCORES_AT_ONCE
) -> Iterator[tuple[slice, Tensor]]:
    """Which queries, and their products with the whole gallery, some at a time.

    Each block overwrites the one before it: fresh memory would take about as long to come by as the scores.

    Shapes:
        queries: [Q, D].
        gallery: [G, D].
        yields: [q, G], of at most ``scores_at_once`` scores, or of one query.
    """
    count = max(1, scores_at_once // max(1, len(gallery)))
    memory = gallery.new_empty(min(count, len(queries)), len(gallery))
    for first in range(0, len(queries) if len(gallery) else 0, count):
        block = slice(first, min(first + count, len(queries)))
        scores = memory[: block.stop - first]
        _products(queries[block], gallery, scores)
        yield block, scores


def _products(queries: Tensor, gallery: Tensor, out: Tensor) -> None:
    """``queries @ gallery.T``; torch's own product is half as fast on processors that are not Intel's."""
    fast = torch.backends.mkldnn.is_available() and queries.dtype == torch.float32  # type: ignore[no-untyped-call]
    if len(queries) < _ROWS or not fast:
        np.matmul(queries.numpy(), gallery.numpy().T, out=out.numpy())
        return
    packed = queries.to_mkldnn()
    for first in range(0, len(gallery), _COLUMNS):
        columns = slice(first, first + _COLUMNS)
        out[:, columns] = F.linear(packed, gallery[columns]).to_dense()


def ranks(scores: NDArray[Any], relevant: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Places of the relevant items in the order of falling scores, equal ones as they stand, from 1.

    The range of the scores is cut into cells, whose items are counted. Only those are sorted that share a
    cell with a relevant item.

    Shapes:
        scores: [G] floating point, finite; G is at least 1.
        relevant: [G], R of them.
        returns: [R], ascending.
    """
    count = min(len(scores), _CELLS)
    depth = scores.max() - scores
    depth *= (count - 1) / max(depth.max(), _TINY)
    cells = depth.astype(np.intp)  # rounding keeps the order: what is in an earlier cell has a higher score
    inside = np.bincount(cells, minlength=count)
    crowded = np.zeros(count, dtype=bool)
    crowded[cells[relevant]] = True
    near = np.flatnonzero(crowded.take(cells, mode="clip"))
    near = near[np.argsort(-scores[near], kind="stable")]
    inside[crowded] = 0
    places: NDArray[np.intp] = np.arange(1, len(near) + 1) + inside.cumsum()[cells[near]]
    return places[relevant[near]]


def _figures(scores: NDArray[Any], relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One query's hits in the first 1, 5, 10, and average precision; nothing relevant: zeros."""
    places = ranks(scores, relevant)
    if not len(places):
        return np.zeros(4)
    precision = np.arange(1, len(places) + 1) / places
    return np.array([*(places[0] <= k for k in (1, 5, 10)), precision.mean()])


def _percent(value: Tensor) -> float:
    return 100 * float(value)
