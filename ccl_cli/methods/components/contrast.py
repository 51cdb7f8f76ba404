"""Contrasts of anchors with the entries of memory banks: which entries are drawn, and what the loss is."""

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
# The reference's guard inside the logarithms, which moves values by less than it.
_EPSILON = 1e-7


class Contrast(NamedTuple):
    """Which bank entries each anchor is compared with.

    Shapes:
        positive: [A] int64.
        negative: [A, K] int64.
        drawn: [A, K] bool; False pads the rows of anchors with fewer than K candidates.
    """

    positive: Tensor
    negative: Tensor
    drawn: Tensor

    @property
    def candidates(self) -> Tensor:
        """The positive, then the negatives: [A, 1 + K]."""
        return torch.cat([self.positive[:, None], self.negative], dim=1)


class NegativeSampler(nn.Module):
    """Draws each anchor's positive and negatives, the same whatever the number of processes.

    Args:
        labels: [N] int64, the class of each training row, -1 without one.
        count: Negatives per anchor, K; fewer where there are fewer candidates.
        negatives: Candidates: videos of other classes, all other videos, or all videos, the anchor's own
            included.
        positive: The anchor's own entry, or that of any video of its class.
    """

    labels: Tensor

    def __init__(self, labels: Tensor, count: int, negatives: Negatives, positive: Positive = "own") -> None:
        super().__init__()
        self.count, self.negatives, self.positive = min(count, len(labels)), negatives, positive
        # A video without a label is the only one of its class.
        alone = UNLABELLED - torch.arange(len(labels))
        self.register_buffer("labels", torch.where(labels == UNLABELLED, alone, labels), persistent=False)
        self.random = SharedDraws()

    @torch.no_grad()
    def draw(self, rows: Tensor, absent: Tensor) -> Contrast:
        """Distinct negatives of each anchor, uniformly among its candidates.

        Shapes:
            rows: [A] int64, this process's anchors.
            absent: [N] bool, videos that lack the modality; never drawn.
        """
        generator = self.random.next(rows.device)
        same_class = self.labels[rows][:, None] == self.labels[None, :]
        allowed = (~absent).expand(len(rows), -1)
        best = self._keys(rows, generator, self._candidates(rows, allowed, same_class)).topk(
            self.count, dim=1
        )
        own = rows
        if self.positive == "same_class":
            keys = self._keys(rows, generator, allowed & same_class)
            own = torch.where(keys.amax(dim=1) >= 0, keys.argmax(dim=1), rows)
        return Contrast(own, best.indices, best.values >= 0)

    def _keys(self, rows: Tensor, generator: torch.Generator, candidates: Tensor) -> Tensor:
        """A random number in [0, 1) for each of an anchor's candidates, -1 elsewhere: [A, N]."""
        return uniform_rows(len(rows), len(self.labels), generator).masked_fill(~candidates, -1.0)

    def _candidates(self, rows: Tensor, allowed: Tensor, same_class: Tensor) -> Tensor:
        if self.negatives == "other_class":
            return allowed & ~same_class
        if self.negatives == "other_instance":
            return allowed.scatter(1, rows[:, None], False)
        return allowed


class NoiseContrast(nn.Module):
    """Noise-contrastive estimation with many negatives (Gutmann and Hyvarinen, 2010), as CRD uses it.

    With P = exp(score) / Z and c = K / N: ``-log P0 / (P0 + c) - sum_k log c / (P_k + c)``. Z is N times the
    mean of exp(score) over the first batch that has any row.

    Args:
        videos: N.
        momentum: Share of Z that later batches keep; 1 fixes it, as published.
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
            drawn: [A, K] bool, negatives that count.
            present: [A] bool, anchors that count.
            returns: [A].
        """
        self._update(scores, drawn, present)
        log_z = self.log_z.nan_to_num(0.0).to(scores.dtype)  # unset only while no row has counted
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
        new = (self.videos * sums / count).log()  # NaN where no row counts
        average = self.momentum * self.log_z.exp() + (1 - self.momentum) * new.exp()
        new_log_z = torch.where(count > 0, average.log(), self.log_z)
        self.log_z.copy_(torch.where(self.log_z.isnan(), new, new_log_z))


class View(NamedTuple):
    """One network's codes of a batch.

    Shapes:
        code: [B, F] of unit length.
        present: [B] bool, the rows that it has.
        bank: Its codes of all training videos.
    """

    code: Tensor
    present: Tensor
    bank: MemoryBank


class ViewContrast(nn.Module):
    """Contrastive loss between two views: each as anchor against the other's bank.

    Args:
        options: Temperature and momentum.
        labels: [N] int64, the class of each training row.
        count: Negatives per anchor, K.
        negatives: See :class:`NegativeSampler`.
        positive: See :class:`NegativeSampler`.
        loss: Softmax or noise-contrastive estimation.
    """

    def __init__(
        self,
        options: BankOptions,
        labels: Tensor,
        count: int,
        negatives: Negatives,
        positive: Positive = "own",
        loss: Loss = "nce",
    ) -> None:
        super().__init__()
        self.temperature = options.temperature
        self.sampler = NegativeSampler(labels, count, negatives, positive)
        self.nce = nn.ModuleList(
            NoiseContrast(len(labels), options.z_momentum) for _ in range(2) if loss == "nce"
        )

    def forward(
        self, first: View, second: View, rows: Tensor, contrast: Contrast | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss of each row, [B], of the first view against the second one's bank, and the other way round.

        Shapes:
            rows: [B] int64, places in the training split.
            contrast: Entries to compare with, instead of drawing them.
        """
        contrast = contrast or self.sampler.draw(rows, first.bank.absent | second.bank.absent)
        scores = (
            second.bank.scores(first.code, contrast.candidates, self.temperature),
            first.bank.scores(second.code, contrast.candidates, self.temperature),
        )
        drawn = contrast.drawn
        if not self.nce:
            return softmax_contrast(scores[0], drawn), softmax_contrast(scores[1], drawn)
        present = first.present & second.present
        return self.nce[0](scores[0], drawn, present), self.nce[1](scores[1], drawn, present)


def softmax_contrast(scores: Tensor, drawn: Tensor) -> Tensor:
    """Cross-entropy of the positive among itself and the negatives.

    Shapes:
        scores: [A, 1 + K] similarities over temperature of the positive and the negatives.
        drawn: [A, K] bool, negatives that count.
        returns: [A].
    """
    target = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    return info_nce(scores, target, F.pad(drawn, (1, 0), value=True))
