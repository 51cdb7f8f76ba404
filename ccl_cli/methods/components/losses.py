"""Loss terms as pure tensor functions, without configuration or communication between processes.

Each function returns one value per row (anchor); the caller masks and averages. Half-precision inputs are
converted to float32; float64 stays float64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ccl_cli.data.manifest import UNLABELLED

# Score of an excluded candidate, in place of minus infinity: its exponential is exactly zero, but its product
# with a zero gradient is zero and not NaN.
EXCLUDED = -1e30
_MIN_NORM = 1e-6


def full_precision(x: Tensor) -> Tensor:
    """Convert half precision to float32, because the exponentials of scores overflow half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def unit_rows(x: Tensor) -> Tensor:
    """Scale rows [..., D] to unit length; rows shorter than 1e-6 become zero and receive no gradient."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * norm.masked_fill(norm <= _MIN_NORM, torch.inf).reciprocal()


def cosine_scores(anchor: Tensor, candidate: Tensor, temperature: float) -> Tensor:
    """Cosine similarity of anchors [A, D] and candidates [C, D] over temperature, [A, C]."""
    anchor, candidate = full_precision(anchor), full_precision(candidate)
    return unit_rows(anchor) @ unit_rows(candidate).mT / temperature


def multiclass_nce(scores: Tensor, positive: Tensor, present: Tensor) -> Tensor:
    """Multi-class noise-contrastive estimation (Eq. 4), also exact for saturated negatives; O(A C) memory.

    With p = softmax of an anchor's row over the present candidates, P its positives and N its negatives:
    ``-mean_P log p - mean_N log(1 - p)``; an empty set contributes zero.

    Shapes:
        scores: [A, C] similarities over temperature.
        positive: [A, C] bool, same class.
        present: [C] bool, present candidates.
        returns: [A].
    """
    # If no candidate is present, none is excluded: the scores stay finite and do not count.
    scores = scores + torch.where(present | ~present.any(), 0.0, EXCLUDED)
    # At most one entry of a row can exceed one half. Its 1 - p is computed from the sum of the others, which
    # is exact even if it is tiny; for the others log1p is accurate. The usual log(1 - p + 1e-10) is not: its
    # gradient vanishes for the hardest negatives.
    best = scores.detach().max(dim=1, keepdim=True).indices  # faster than argmax
    others = scores.scatter(1, best, EXCLUDED)
    largest = others.detach().amax(dim=1, keepdim=True)
    weights = (others - largest).exp()  # 0 at the best entry, unless it is the only one
    log_sum_others = largest + weights.sum(dim=1, keepdim=True).log()  # [A, 1]
    log_sum = torch.logaddexp(scores.gather(1, best), log_sum_others)  # [A, 1]
    log_not_p = torch.log1p(-(largest - log_sum).exp() * weights)
    log_not_p = log_not_p.scatter(1, best, log_sum_others - log_sum)
    own = positive & present
    log_p = _mean_where(scores, own) - log_sum.squeeze(1) * own.any(dim=1)
    return -log_p - _mean_where(log_not_p, ~positive & present)


def info_nce(scores: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """InfoNCE (Eq. 3): cross-entropy [A] of each anchor's own candidate, given by its column ``target`` [A].

    ``scores`` [A, C] are similarities over temperature. Only ``present`` candidates ([C] or [A, C]) count.
    """
    return F.cross_entropy(scores.masked_fill(~present, EXCLUDED), target, reduction="none")


def half_jeffreys(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Mean of both Kullback-Leibler divergences (Eq. 7) of logits [B, K], [B].

    The paper calls it Jensen-Shannon divergence.
    """
    log_p, log_q = _log_softmax(logits_p), _log_softmax(logits_q)
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1)


def jensen_shannon(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats of logits [B, K], [B]: the mean divergence from their mixture."""
    log_p, log_q = _log_softmax(logits_p), _log_softmax(logits_q)
    log_mixture = torch.logaddexp(log_p, log_q) - math.log(2)
    divergences = log_p.exp() * (log_p - log_mixture) + log_q.exp() * (log_q - log_mixture)
    return 0.5 * divergences.sum(dim=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row, [B], from logits [B, K] and labels [B]; 0 where the label is -1."""
    return F.cross_entropy(full_precision(logits), labels, reduction="none", ignore_index=UNLABELLED)


def _log_softmax(logits: Tensor) -> Tensor:
    return full_precision(logits).log_softmax(dim=1)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries of each row selected by ``mask``, [A]; 0 if there are none. Values are finite."""
    counted = mask.to(values.dtype)
    total: Tensor = torch.linalg.vecdot(values, counted)
    return total / counted.sum(dim=1).clamp(min=1)
