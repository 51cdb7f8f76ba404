"""Contrastive losses of anchors against memory banks, and the sampling of their positives and negatives."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccl_cli.data.manifest import UNLABELLED
from ccl_cli.methods.components.draws import SharedDraws, uniform_rows
from ccl_cli.methods.components.losses import info_nce
from ccl_cli.methods.components.memory_bank import BankOptions, MemoryBank
from ccl_cli.utils.distributed import total

Negatives = Literal["other_class", "other_instance", "uniform"]
Positive = Literal["own", "same_class"]
Loss = Literal["softmax", "nce"]
_EPSILON = 1e-7  # added inside the logarithms, as in the reference code


class ContrastSamples(NamedTuple):
    """The bank entries that each anchor is compared with.

    Shapes:
        candidates: [A, 1 + K] int64, the positive and the negatives.
        drawn: [A, K] bool; False for the padding of anchors with fewer than K negatives.
    """

    candidates: Tensor
    drawn: Tensor


class NegativeSampler(nn.Module):
    """Draws the positive and K negatives of each anchor, independently of the number of processes.

    Args:
        labels: [N] int64, the class of each training row; -1 without label.
        count: Negatives per anchor, limited by the number of candidates.
        negatives: ``uniform``: all videos including the anchor's own.
        positive: The anchor's own entry, or the entry of any video of its class.
    """

    labels: Tensor

    def __init__(self, labels: Tensor, count: int, negatives: Negatives, positive: Positive = "own") -> None:
        super().__init__()
        self.count, self.negatives, self.positive = min(count, len(labels)), negatives, positive
        # Each unlabelled video forms a class of its own.
        unique = UNLABELLED - torch.arange(len(labels))
        self.register_buffer("labels", torch.where(labels == UNLABELLED, unique, labels), persistent=False)
        self.random = SharedDraws()

    @torch.no_grad()
    def draw(self, rows: Tensor, absent: Tensor) -> ContrastSamples:
        """Draw distinct negatives of this process's anchors ``rows`` [A], uniformly, and their positives.

        Videos that are ``absent`` ([N] bool, without the modality) are never drawn.
        """
        generator = self.random.next(rows.device)
        same_class = self.labels[rows][:, None] == self.labels[None, :]
        present = (~absent).expand(len(rows), -1)
        allowed = present
        if self.negatives == "other_class":
            allowed = present & ~same_class
        elif self.negatives == "other_instance":
            allowed = present.scatter(1, rows[:, None], False)
        best = self._keys(allowed, generator).topk(self.count, dim=1)
        own = rows
        if self.positive == "same_class":
            keys = self._keys(present & same_class, generator)
            own = torch.where(keys.amax(dim=1) >= 0, keys.argmax(dim=1), rows)
        return ContrastSamples(torch.cat([own[:, None], best.indices], dim=1), best.values >= 0)

    def _keys(self, candidates: Tensor, generator: torch.Generator) -> Tensor:
        """Random numbers in [0, 1) for the candidates of each anchor, -1 for other videos: [A, N]."""
        rows, videos = candidates.shape
        return uniform_rows(rows, videos, generator).masked_fill(~candidates, -1.0)


class NCELoss(nn.Module):
    """Noise-contrastive estimation with many negatives (Gutmann and Hyvarinen, 2010), as in CRD.

    With P = exp(score) / Z and c = K / N: ``-log P0 / (P0 + c) - sum_k log c / (P_k + c)``. Z is N times the
    mean of exp(score) over the first batch with a present row. ``momentum`` is the weight of the old Z when a
    later batch updates it; 1 keeps the first Z, as published.
    """

    log_z: Tensor

    def __init__(self, videos: int, momentum: float = 1.0) -> None:
        super().__init__()
        self.videos, self.momentum = videos, momentum
        self.register_buffer("log_z", torch.tensor(math.nan, dtype=torch.float64))

    def forward(self, scores: Tensor, drawn: Tensor, present: Tensor) -> Tensor:
        """Loss of each anchor.

        Shapes:
            scores: [A, 1 + K] similarities over temperature of the positive and the negatives.
            drawn: [A, K] bool, False for padding.
            present: [A] bool, present anchors.
            returns: [A].
        """
        self._update(scores, drawn, present)
        log_z = self.log_z.nan_to_num(0.0).to(scores.dtype)  # NaN until the first present row
        share = drawn.sum(dim=1).clamp(min=1).to(scores.dtype) / self.videos  # [A], K / N
        log_c, log_guarded = share.log(), (share + _EPSILON).log()
        log_p, log_q = scores[:, 0] - log_z, scores[:, 1:] - log_z
        of_positive = log_p - torch.logaddexp(log_p, log_guarded)
        of_negative = log_c[:, None] - torch.logaddexp(log_q, log_guarded[:, None])
        return -of_positive - torch.where(drawn, of_negative, 0.0).sum(dim=1)

    @torch.no_grad()
    def _update(self, scores: Tensor, drawn: Tensor, present: Tensor) -> None:
        counted = F.pad(drawn, (1, 0), value=True) & present[:, None]
        exps = torch.where(counted, scores.double().exp(), 0.0)
        sums, count = total(torch.stack([exps.sum(), counted.sum().double()])).unbind()
        new = (self.videos * sums / count).log()  # NaN without any present row
        average = self.momentum * self.log_z.exp() + (1 - self.momentum) * new.exp()
        new_log_z = torch.where(count > 0, average.log(), self.log_z)
        self.log_z.copy_(torch.where(self.log_z.isnan(), new, new_log_z))


class View(NamedTuple):
    """One network's projected embeddings of a batch, and its memory bank.

    Shapes:
        code: [B, F] of unit length.
        present: [B] bool.
        bank: Entries of width F for all training videos.
    """

    code: Tensor
    present: Tensor
    bank: MemoryBank


class ContrastiveLoss(nn.Module):
    """Contrastive loss between two views, each as anchor against the bank of the other."""

    def __init__(self, options: BankOptions, sampler: NegativeSampler, loss: Loss = "nce") -> None:
        super().__init__()
        self.temperature, self.sampler = options.temperature, sampler
        videos = len(sampler.labels)
        self.nce = nn.ModuleList(NCELoss(videos, options.z_momentum) for _ in range(2) if loss == "nce")

    def forward(self, first: View, second: View, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each row, [B], of the first view against the second view's bank, and vice versa."""
        candidates, drawn = self.sampler.draw(rows, first.bank.absent | second.bank.absent)
        forth = second.bank.scores(first.code, candidates, self.temperature)
        back = first.bank.scores(second.code, candidates, self.temperature)
        if not self.nce:
            return softmax_loss(forth, drawn), softmax_loss(back, drawn)
        present = first.present & second.present
        return self.nce[0](forth, drawn, present), self.nce[1](back, drawn, present)


def softmax_loss(scores: Tensor, drawn: Tensor) -> Tensor:
    """Cross-entropy of the positive against the negatives, [A]; for shapes see :class:`NCELoss`."""
    target = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    return info_nce(scores, target, F.pad(drawn, (1, 0), value=True))
