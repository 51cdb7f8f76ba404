"""Recognition and retrieval figures from per-video scores and features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_QUERIES_AT_ONCE = 256


def recognition(scores: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, object]:
    """Video-level recognition, in percent; a video without scores counts as an error.

    Shapes:
        scores: [V, K] one row per video; a row that is not finite stands for a video that could not be read.
        labels: [V] int64.

    Returns:
        ``top1``, ``top5``, ``mean_class`` (mean of the classes' own top-1) and ``per_class``.
    """
    read = torch.isfinite(scores).all(dim=1)
    ranked = scores.argsort(dim=1, descending=True, stable=True)[:, :5]
    hits = (ranked == labels[:, None]) & read[:, None]
    first = hits[:, 0].double()
    per_class = {}
    for label, name in enumerate(classes):
        own = labels == label
        if own.any():
            per_class[name] = {"top1": _percent(first[own].mean()), "videos": int(own.sum())}
    means = [row["top1"] for row in per_class.values()]
    return {
        "top1": _percent(first.mean()),
        "top5": _percent(hits.any(dim=1).double().mean()),
        "mean_class": sum(means) / len(means),
        "per_class": per_class,
    }


def retrieval(
    queries: Tensor, query_labels: Tensor, gallery: Tensor, gallery_labels: Tensor
) -> dict[str, float]:
    """Cosine retrieval, in percent: an item of the query's class among the first K; mean average precision.

    A query without a feature (a row that is not finite) counts as an error in every figure; a gallery item
    without one cannot be found, so it is left out.

    Shapes:
        queries: [Q, D] features of the test videos.
        gallery: [G, D] features of the training videos.
    """
    found = torch.isfinite(gallery).all(dim=1)
    gallery, gallery_labels = F.normalize(gallery[found], dim=1), gallery_labels[found]
    read = torch.isfinite(queries).all(dim=1)
    sums = torch.zeros(4, dtype=torch.float64)
    if len(gallery):
        for rows in torch.split(torch.arange(len(queries))[read], _QUERIES_AT_ONCE):
            scores = F.normalize(queries[rows], dim=1) @ gallery.T
            order = scores.argsort(dim=1, descending=True, stable=True)
            sums += _retrieval_sums(gallery_labels[order] == query_labels[rows, None])
    r1, r5, r10, average_precision = (100 * sums / max(len(queries), 1)).tolist()
    return {"r1": r1, "r5": r5, "r10": r10, "map": average_precision}


def _retrieval_sums(relevant: Tensor) -> Tensor:
    """Sums over queries: hits in the first 1, 5, 10; average precision. ``relevant`` is [Q, G], ranked."""
    hits = [relevant[:, :k].any(dim=1).sum().double() for k in (1, 5, 10)]
    ranks = torch.arange(1, relevant.shape[1] + 1, dtype=torch.float64)
    precision = relevant.cumsum(dim=1).double() / ranks
    average = (precision * relevant).sum(dim=1) / relevant.sum(dim=1).clamp(min=1)
    return torch.stack([*hits, average.sum()])


def _percent(value: Tensor) -> float:
    return 100 * float(value)
