"""How much of the classes embeddings tell by themselves: nearest neighbours, a linear layer, a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from scipy.stats import beta
from torch import Tensor

Verdict = Literal["highly", "weakly", "not"]
VERDICTS: tuple[Verdict, ...] = ("highly", "weakly", "not")
CONFIDENCE, HIGH = 0.95, 0.25
RULE = (
    "Verdict on a class, from the lower end of the exact 95 % interval of its kNN recall: "
    "not correlated if that is not above chance, highly if it is at least a quarter of the way from chance "
    "to 100 %, else weakly. Chance is the class's share of the training videos, or of the test videos of "
    "other classes that are taken for it, if that is more."
)
PENALTIES = (1.0, 0.1, 0.01, 0.001)
_USUAL = 0.01  # where no video can be set aside to choose on
_CONSTANT = 1e-6  # standard deviation below which a coordinate of unit rows says nothing
_QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class Labelled:
    """Embeddings of one split, of those videos that have them.

    Shapes:
        value: [N, D] float.
        labels: [N] int64.
    """

    value: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ClassProbe:
    """One class.

    Attributes:
        videos: Test videos with an embedding.
        recall: Share of them whose neighbours are right; None without any.
        low: Lower end of its interval.
        high: Upper end.
        chance: Recall without knowledge; see :data:`RULE`.
        verdict: None without any test video.
    """

    videos: int
    recall: float | None
    low: float
    high: float
    chance: float
    verdict: Verdict | None


@dataclass(frozen=True)
class Probe:
    """What one set of embeddings tells; accuracies in [0, 1], over the test videos that have one.

    Attributes:
        knn: Of the nearest neighbours.
        linear: Of the linear layer.
        chance: Of naming the largest class of the training videos every time.
        penalty: The linear layer's, as chosen.
        classes: By label.
    """

    knn: float
    linear: float
    chance: float
    penalty: float
    classes: tuple[ClassProbe, ...]


def probe(train: Labelled, test: Labelled, aside: Tensor, classes: int, k: int) -> Probe:
    """Ask embeddings that :func:`comparable` has prepared.

    Args:
        train: Neighbours, and what the linear layer learns from.
        test: Looked at once, at the end.
        aside: [N] bool, the training videos on which the penalty is chosen.
        classes: Number of classes.
        k: Number of neighbours.
    """
    guesses = nearest(train, test.value, classes, k)
    predicted, penalty = linear(train, test.value, aside, classes)
    largest = int(train.labels.bincount(minlength=classes).argmax())
    return Probe(
        _share(guesses == test.labels),
        _share(predicted == test.labels),
        _share(test.labels == largest),
        penalty,
        per_class(guesses, test.labels, train.labels, classes),
    )


def comparable(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the training mean and scale each row to length one, so that a product is a cosine.

    Without the mean, embeddings that cannot be negative would all look alike.

    Shapes:
        train: [N, D].
        test: [M, D].
    """
    mean = train.mean(dim=0)
    return F.normalize(train - mean, dim=1), F.normalize(test - mean, dim=1)


def nearest(train: Labelled, queries: Tensor, classes: int, k: int) -> Tensor:
    """The class that most of the k nearest training videos have, by cosine; the nearer ones decide a tie.

    Shapes:
        queries: [M, D].
        returns: [M] int64.
    """
    found = []
    for some in torch.split(queries, _QUERIES_AT_ONCE):
        cosine, places = (some @ train.value.T).topk(min(k, len(train.value)), dim=1)
        # A vote counts one and a little for its cosine: all of these together stay below one vote.
        votes = 1 + (cosine + 1) / (4 * k)
        scores = torch.zeros(len(some), classes).scatter_add_(1, train.labels[places], votes)
        found.append(scores.argmax(dim=1))
    return torch.cat(found) if found else torch.empty(0, dtype=torch.long)


def linear(train: Labelled, queries: Tensor, aside: Tensor, classes: int) -> tuple[Tensor, float]:
    """Multinomial logistic regression on standardised coordinates.

    Its penalty is chosen on a part of the training videos; then it learns from all of them.

    Shapes:
        queries: [M, D].
        aside: [N] bool.

    Returns:
        [M] int64 predictions, and the penalty.
    """
    mean, scale = train.value.mean(dim=0), train.value.std(dim=0, correction=0)
    scale = torch.where(scale > _CONSTANT, scale, 1.0)
    value, labels = (train.value - mean) / scale, train.labels
    penalty, layer = _USUAL, torch.zeros(value.shape[1] + 1, classes)
    if aside.any() and not aside.all():
        penalty, layer = _choose(value, labels, aside, classes)
    layer = fit_linear(value, labels, layer, penalty)
    return _scores((queries - mean) / scale, layer).argmax(dim=1), penalty


def fit_linear(value: Tensor, labels: Tensor, start: Tensor, penalty: float) -> Tensor:
    """Minimise the mean cross-entropy plus half the penalty times the squared weights, by L-BFGS.

    Shapes:
        value: [N, D].
        start: [D + 1, K] weights and, in the last row, biases, which are not penalised.
        returns: like start.
    """
    layer = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [layer],
        max_iter=100,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value_now = F.cross_entropy(_scores(value, layer), labels) + penalty / 2 * layer[:-1].square().sum()
        value_now.backward()  # type: ignore[no-untyped-call]
        return value_now

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return layer.detach()


def per_class(guesses: Tensor, labels: Tensor, known: Tensor, classes: int) -> tuple[ClassProbe, ...]:
    """Recall of each class, its interval and the verdict.

    Shapes:
        guesses: [M] int64.
        labels: [M] int64.
        known: [N] int64, classes of the training videos.
    """
    probes = []
    for label in range(classes):
        own = labels == label
        chance = max(_share(known == label), _share(guesses[~own] == label))
        hits, videos = int((guesses[own] == label).sum()), int(own.sum())
        low, high = interval(hits, videos)
        recall = hits / videos if videos else None
        given = verdict(low, chance) if videos else None
        probes.append(ClassProbe(videos, recall, low, high, chance, given))
    return tuple(probes)


def interval(hits: int, tries: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact (Clopper-Pearson) interval of a share; [0, 1] without tries."""
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, tries - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, tries - hits)) if hits < tries else 1.0
    return low, high


def verdict(low: float, chance: float) -> Verdict:
    """How well a class goes with its embeddings, as :data:`RULE` says."""
    if low <= chance:
        return "not"
    return "highly" if low >= chance + HIGH * (1 - chance) else "weakly"


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Several teachers' embeddings of the same videos, each of length one, as one of length one."""
    return torch.cat(tuple(parts), dim=1) / math.sqrt(len(parts))


def _choose(value: Tensor, labels: Tensor, aside: Tensor, classes: int) -> tuple[float, Tensor]:
    """The penalty that does best on the videos set aside, and the layer it gives without them."""
    layer = torch.zeros(value.shape[1] + 1, classes)
    tried: list[tuple[float, float, Tensor]] = []
    for penalty in PENALTIES:  # from the strongest: each fit starts where the one before ended
        layer = fit_linear(value[~aside], labels[~aside], layer, penalty)
        tried.append((_share(_scores(value[aside], layer).argmax(dim=1) == labels[aside]), penalty, layer))
    _, penalty, layer = max(tried, key=lambda each: each[:2])
    return penalty, layer


def _scores(value: Tensor, layer: Tensor) -> Tensor:
    scores: Tensor = value @ layer[:-1] + layer[-1]
    return scores


def _share(flags: Tensor) -> float:
    return float(flags.double().mean()) if len(flags) else 0.0
