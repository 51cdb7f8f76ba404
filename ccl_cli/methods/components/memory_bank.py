"""Memory banks: one remembered embedding per training video, and contrasts against many of them at once.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018; used by CRD
and CMC. Banks hold an entry for every training video, so that a contrast sees thousands of negatives at a
small batch. Every process holds the same banks: updates are gathered, and draws come from one generator.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ccl_cli.data.manifest import UNLABELLED
from ccl_cli.methods import MethodOptions
from ccl_cli.methods.components.draws import SharedDraws, uniform_rows
from ccl_cli.methods.components.losses import info_nce, unit_rows
from ccl_cli.utils.distributed import gather_mask, gather_rows, total

Negatives = Literal["other_class", "other_instance", "uniform"]
Positive = Literal["own", "same_class"]
Loss = Literal["softmax", "nce"]
Share = Annotated[float, Field(ge=0, le=1)]
# The reference's guard inside the logarithms, which moves values by less than it.
_EPSILON = 1e-7


class BankOptions(MethodOptions):
    """Options of every method with memory banks."""

    dim: int = Field(128, ge=1, description="Width of the space in which embeddings are compared.")
    # Far below, the exponentials that the normalising constant sums overflow.
    temperature: float = Field(0.07, ge=0.005, description="Divides the similarities.")
    momentum: Share = Field(0.5, description="Share of a bank's old entry that an update keeps.")
    z_momentum: Share = Field(
        1.0, description="Of nce: share of the normalising constant that later batches keep; 1: fixed."
    )


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


class MemoryBank(nn.Module):
    """Remembered embeddings of one network, and whether each video is known to lack that modality.

    Args:
        videos: Rows N of the training split.
        dim: Width F of an embedding.
        momentum: Share of the old entry that an update keeps.
    """

    entries: Tensor
    absent: Tensor

    def __init__(self, videos: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        # What updates have overwritten since `remember`: rows, entries, absent. None: nobody asked.
        self._overwritten: list[tuple[Tensor, Tensor, Tensor]] | None = None
        bound = math.sqrt(3 / dim)  # rows of expected unit length
        self.register_buffer("entries", torch.empty(videos, dim).uniform_(-bound, bound))
        self.register_buffer("absent", torch.zeros(videos, dtype=torch.bool))

    def scores(self, anchor: Tensor, temperature: float) -> Tensor:
        """Similarity of anchors ``[A, F]`` to every entry over temperature, ``[A, N]``.

        One product with the whole bank needs less memory than the chosen entries of each anchor would.
        """
        return anchor @ self.entries.to(anchor.dtype, copy=True).mT / temperature

    @torch.no_grad()
    def update(self, rows: Tensor, embedding: Tensor, present: Tensor) -> None:
        """Move entries towards new embeddings, those of every process.

        A video that stands in the batch more than once is moved once, by its first embedding.

        Shapes:
            rows: [B] int64, the videos' places in the training split.
            embedding: [B, F], of unit length.
            present: [B] bool.
        """
        rows, present = gather_rows(rows), gather_mask(present)
        embedding = gather_rows(embedding.detach()).to(self.entries.dtype)
        same = (rows[:, None] == rows[None, :]) & present[None, :]
        first, any_present = same.int().argmax(dim=1), same.any(dim=1)
        old = self.entries[rows]
        if self._overwritten is not None:
            self._overwritten.append((rows, old, self.absent[rows]))
        moved = unit_rows(self.momentum * old + (1 - self.momentum) * embedding[first])
        self.entries[rows] = torch.where(any_present[:, None], moved, old)
        self.absent[rows] = ~any_present

    def remember(self) -> None:
        """Keep what updates overwrite from here on, a batch's rows each, so that they can be undone."""
        self._overwritten = []

    def forget(self) -> None:
        """The updates since :meth:`remember` stay."""
        self._overwritten = None

    @torch.no_grad()
    def undo(self) -> None:
        """Take back the updates since :meth:`remember`."""
        for rows, entries, absent in reversed(self._overwritten or []):
            self.entries[rows], self.absent[rows] = entries, absent
        self.forget()


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

    def forward(self, scores: Tensor, contrast: Contrast, present: Tensor) -> Tensor:
        """Loss of each anchor.

        Shapes:
            scores: [A, N] similarities over temperature.
            present: [A] bool, anchors that count.
            returns: [A].
        """
        positive = scores.gather(1, contrast.positive[:, None]).squeeze(1)  # [A]
        negative = scores.gather(1, contrast.negative)  # [A, K]
        self._update(positive, negative, contrast.drawn, present)
        log_z = self.log_z.nan_to_num(0.0).to(scores.dtype)  # unset only while no row has counted
        share = contrast.drawn.sum(dim=1).clamp(min=1).to(scores.dtype) / self.videos  # [A], K / N
        log_c, log_guarded = share.log(), (share + _EPSILON).log()
        log_p, log_q = positive - log_z, negative - log_z
        of_positive = log_p - torch.logaddexp(log_p, log_guarded)
        of_negative = log_c[:, None] - torch.logaddexp(log_q, log_guarded[:, None])
        return -of_positive - torch.where(contrast.drawn, of_negative, 0.0).sum(dim=1)

    @torch.no_grad()
    def _update(self, positive: Tensor, negative: Tensor, drawn: Tensor, present: Tensor) -> None:
        counted = torch.cat([present[:, None], drawn & present[:, None]], dim=1)
        exps = torch.cat([positive[:, None], negative], dim=1).double().exp()
        both = torch.stack([torch.where(counted, exps, 0.0).sum(), counted.sum().double()])
        sums, count = total(both).unbind()
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
            second.bank.scores(first.code, self.temperature),
            first.bank.scores(second.code, self.temperature),
        )
        if not self.nce:
            return softmax_contrast(scores[0], contrast), softmax_contrast(scores[1], contrast)
        present = first.present & second.present
        return self.nce[0](scores[0], contrast, present), self.nce[1](scores[1], contrast, present)


def softmax_contrast(scores: Tensor, contrast: Contrast) -> Tensor:
    """Cross-entropy of the positive among itself and the negatives.

    Shapes:
        scores: [A, N] similarities over temperature.
        returns: [A].
    """
    candidates = torch.cat([contrast.positive[:, None], contrast.negative], dim=1)
    present = F.pad(contrast.drawn, (1, 0), value=True)
    return info_nce(scores.gather(1, candidates), torch.zeros_like(contrast.positive), present)
