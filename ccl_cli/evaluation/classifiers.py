"""How much of the classes embeddings tell by themselves: nearest neighbours, a linear layer, a verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from scipy.stats import beta
from torch import Tensor

from ccl_cli.evaluation.metrics import highest, score_blocks

Verdict = Literal["highly", "weakly", "not"]
VERDICTS: tuple[Verdict, ...] = ("highly", "weakly", "not")
CONFIDENCE, HIGH = 0.95, 0.25
RULE = (
    "Verdict on a class, from the lower end of the exact 95 % interval of its kNN recall: "
    "not correlated if that is not above chance, highly if it is at least a quarter of the way from chance "
    "to 100 %, else weakly. Chance is the class's share of the training videos, or of the test videos of "
    "other classes that are taken for it, if that is more."
)
PENALTIES = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)
_USUAL = 0.01  # where no video can be set aside to choose on
_PATIENCE = 2  # penalties in a row that do worse than the best: still weaker ones are not tried
_CONSTANT = 1e-6  # standard deviation below which a coordinate of unit rows says nothing


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
class Neighbours:
    """What nearest neighbours tell; accuracies in [0, 1], over the test videos that have an embedding.

    Attributes:
        knn: Of the nearest neighbours.
        chance: Of naming the largest class of the training videos every time.
        classes: By label.
    """

    knn: float
    chance: float
    classes: tuple[ClassProbe, ...]


@dataclass(frozen=True)
class Linear:
    """What a linear layer tells.

    Attributes:
        accuracy: In [0, 1], over the test videos that have an embedding.
        penalty: As chosen.
    """

    accuracy: float
    penalty: float


def ask_neighbours(train: Labelled, test: Labelled, classes: int, k: int) -> Neighbours:
    """Ask the k nearest training videos; :func:`comparable` has prepared the embeddings."""
    guesses = nearest(train, test.value, classes, k)
    largest = int(train.labels.bincount(minlength=classes).argmax())
    return Neighbours(
        _share(guesses == test.labels),
        _share(test.labels == largest),
        per_class(guesses, test.labels, train.labels, classes),
    )


def ask_linear(train: Labelled, test: Labelled, asides: Tensor, classes: int) -> Linear:
    """Ask a linear layer; see :func:`linear`.

    The test videos decide nothing: they are looked at once, at the end.
    """
    predicted, penalty = linear(train, test.value, asides, classes)
    return Linear(_share(predicted == test.labels), penalty)


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
    for _, scores in score_blocks(queries, train.value):
        cosine, places = highest(scores, k)
        # A vote counts one and a little for its cosine: all of these together stay below one vote.
        votes = 1 + (cosine + 1) / (4 * k)
        counted = torch.zeros(len(scores), classes).scatter_add_(1, train.labels[places], votes)
        found.append(counted.argmax(dim=1))
    return torch.cat(found) if found else torch.empty(0, dtype=torch.long)


def linear(train: Labelled, queries: Tensor, asides: Tensor, classes: int) -> tuple[Tensor, float]:
    """Multinomial logistic regression on standardised coordinates, as is usual for linear probes.

    The training videos alone decide everything: mean and deviation of the coordinates, and the penalty, as
    :func:`choose_penalty` does. The layer is then fitted again, to all of them (Kornblith et al. 2019,
    "Do Better ImageNet Models Transfer Better?": a logarithmic grid, L-BFGS, fitted again after choosing).

    Shapes:
        queries: [M, D].
        asides: [R, N] bool, the training videos that each of R rounds sets aside to choose on.

    Returns:
        [M] int64 predictions, and the penalty.
    """
    mean, scale = train.value.mean(dim=0), train.value.std(dim=0, correction=0)
    scale = torch.where(scale > _CONSTANT, scale, 1.0)
    value = (train.value - mean) / scale
    penalty, layer = choose_penalty(Labelled(value, train.labels), asides, classes)
    layer = fit_linear(value, train.labels, layer, penalty)
    return _scores((queries - mean) / scale, layer).argmax(dim=1), penalty


def choose_penalty(train: Labelled, asides: Tensor, classes: int) -> tuple[float, Tensor]:
    """The penalty with the highest accuracy on the videos set aside, mean over the rounds.

    Tried are :data:`PENALTIES`, the strongest first; once two in a row do worse than the best, still weaker
    ones are left out. Of equal ones the strongest counts. Rounds in which all videos or none are set aside do
    not count; without any, the penalty is 0.01.

    Shapes:
        asides: [R, N] bool.

    Returns:
        The penalty, and a layer fitted with it, to start from: [D + 1, K].
    """
    rounds = [aside for aside in asides if aside.any() and not aside.all()]
    start = torch.zeros(train.value.shape[1] + 1, classes)
    if not rounds:
        return _USUAL, start
    layers, best, worse = [start] * len(rounds), (-1.0, _USUAL, start), 0
    for penalty in PENALTIES:  # each fit starts where the one before ended
        layers = [
            fit_linear(train.value[~aside], train.labels[~aside], layer, penalty)
            for aside, layer in zip(rounds, layers, strict=True)
        ]
        accuracy = statistics.fmean(map(partial(_accuracy, train), rounds, layers))
        worse = worse + 1 if accuracy < best[0] else 0
        if accuracy > best[0]:
            best = accuracy, penalty, layers[0]
        if worse == _PATIENCE:
            break
    return best[1:]


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


def _accuracy(train: Labelled, aside: Tensor, layer: Tensor) -> float:
    return _share(_scores(train.value[aside], layer).argmax(dim=1) == train.labels[aside])


def _scores(value: Tensor, layer: Tensor) -> Tensor:
    scores: Tensor = value @ layer[:-1] + layer[-1]
    return scores


def _share(flags: Tensor) -> float:
    return float(flags.double().mean()) if len(flags) else 0.0
