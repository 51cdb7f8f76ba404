"""Recognition and retrieval metrics from scores and features of videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_SCORES_AT_ONCE = 2**26  # smaller products are slower
_COLUMNS = 2048  # gallery items per product; larger results do not fit into the processor's cache
_ROWS = 64  # minimum number of queries for which blocking is faster
_CELLS = 2**16
_TINY = np.float32(1e-30)


def recognition(scores: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, object]:
    """Compute video-level recognition metrics in percent: top-1, top-5, and the mean of the per-class top-1.

    Shapes:
        scores: [V, K] one row per video; a non-finite row marks an unreadable video, which is an error.
        labels: [V] int64.
    """
    read = torch.isfinite(scores).all(dim=1)
    own = scores.gather(1, labels[:, None])
    # Count instead of sorting, which would take most of the time with 5,000 classes. The first of equal
    # scores wins.
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
    """Compute cosine retrieval metrics in percent: recall at K, and mean average precision.

    A query without a feature (a non-finite row) counts as an error in every metric, and gallery items without
    one are ignored. Of items with equal scores, the first comes first. Memory: a copy of the features, and
    ``scores_at_once`` scores or those of one query.

    Shapes: queries: [Q, D]. query_labels: [Q] int64. gallery: [G, D]. gallery_labels: [G] int64.
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
    """Normalise the finite rows of [N, D] to unit length [n, D]; also return their mask [N]."""
    length = torch.linalg.vector_norm(features, dim=1)
    finite = length.isfinite()
    return features[finite].div_(length[finite, None].clamp(min=1e-12)), finite


def score_blocks(
    queries: Tensor, gallery: Tensor, scores_at_once: int = _SCORES_AT_ONCE
) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of queries and their products [q, G] with the whole gallery, block by block.

    Each block overwrites the previous one, because allocating memory would take as long as the product.

    Shapes: queries: [Q, D]. gallery: [G, D].
    """
    count = max(1, scores_at_once // max(1, len(gallery)))
    memory = gallery.new_empty(min(count, len(queries)), len(gallery))
    for first in range(0, len(queries) if len(gallery) else 0, count):
        block = slice(first, min(first + count, len(queries)))
        scores = memory[: block.stop - first]
        _products(queries[block], gallery, scores)
        yield block, scores


def _products(queries: Tensor, gallery: Tensor, out: Tensor) -> None:
    """Compute ``queries @ gallery.T``; torch's product is half as fast on processors other than Intel's."""
    fast = torch.backends.mkldnn.is_available() and queries.dtype == torch.float32  # type: ignore[no-untyped-call]
    if len(queries) < _ROWS or not fast:
        np.matmul(queries.numpy(), gallery.numpy().T, out=out.numpy())
        return
    packed = queries.to_mkldnn()
    for first in range(0, len(gallery), _COLUMNS):
        columns = slice(first, first + _COLUMNS)
        out[:, columns] = F.linear(packed, gallery[columns]).to_dense()


def ranks(scores: NDArray[Any], relevant: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Ranks [R], from 1, of the relevant items by descending score; ties keep their order.

    The range of the scores is divided into cells, and the items per cell are counted. Only items that share a
    cell with a relevant item are sorted.

    Shapes: scores: [G] floating point, finite; G is at least 1. relevant: [G], R of them.
    """
    count = min(len(scores), _CELLS)
    depth = scores.max() - scores
    depth *= (count - 1) / max(depth.max(), _TINY)
    cells = depth.astype(np.intp)  # rounding is monotonic: items in earlier cells have higher scores
    inside = np.bincount(cells, minlength=count)
    crowded = np.zeros(count, dtype=bool)
    crowded[cells[relevant]] = True
    near = np.flatnonzero(crowded.take(cells, mode="clip"))
    near = near[np.argsort(-scores[near], kind="stable")]
    inside[crowded] = 0
    places: NDArray[np.intp] = np.arange(1, len(near) + 1) + inside.cumsum()[cells[near]]
    return places[relevant[near]]


def _figures(scores: NDArray[Any], relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Hits in the first 1, 5 and 10 results, and average precision; zeros without relevant items."""
    places = ranks(scores, relevant)
    if not len(places):
        return np.zeros(4)
    precision = np.arange(1, len(places) + 1) / places
    return np.array([*(places[0] <= k for k in (1, 5, 10)), precision.mean()])


def _percent(value: Tensor) -> float:
    return 100 * float(value)
