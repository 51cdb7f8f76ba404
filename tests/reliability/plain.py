"""The losses from their formulas: loops over plain numbers, slow, and nothing shared with the package.

A vector is a list of numbers, a batch a list of vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

Vector = Sequence[float]
Batch = Sequence[Vector]


def dot(x: Vector, y: Vector) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def norm(x: Vector) -> float:
    return math.sqrt(dot(x, x))


def cosine(x: Vector, y: Vector) -> float:
    return dot(x, y) / (norm(x) * norm(y))


def minus(x: Vector, y: Vector) -> list[float]:
    return [a - b for a, b in zip(x, y, strict=True)]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def softmax(scores: Vector) -> list[float]:
    exps = [math.exp(score - max(scores)) for score in scores]
    return [each / math.fsum(exps) for each in exps]


def multiclass_nce(first: Batch, second: Batch, labels: Sequence[int], temperature: float) -> float:
    """Eq. 4: positives are the rows of the anchor's class, its own among them."""
    rows = []
    for x, label in zip(first, labels, strict=True):
        p = softmax([cosine(x, y) / temperature for y in second])
        own = [math.log(value) for value, other in zip(p, labels, strict=True) if other == label]
        others = [math.log(1 - value) for value, other in zip(p, labels, strict=True) if other != label]
        rows.append(-mean(own) - mean(others))
    return mean(rows)


def info_nce(first: Batch, second: Batch, temperature: float) -> float:
    """Eq. 3."""
    rows = [softmax([cosine(x, y) / temperature for y in second]) for x in first]
    return mean([-math.log(row[place]) for place, row in enumerate(rows)])


def kullback_leibler(p: Vector, q: Vector) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def half_jeffreys(first: Vector, second: Vector) -> float:
    """Eq. 7."""
    p, q = softmax(first), softmax(second)
    return (kullback_leibler(p, q) + kullback_leibler(q, p)) / 2


def jensen_shannon(first: Vector, second: Vector) -> float:
    p, q = softmax(first), softmax(second)
    between = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (kullback_leibler(p, between) + kullback_leibler(q, between)) / 2


def neighbours(rows: Batch) -> list[list[float]]:
    """Each row's distribution over all rows by ``(1 + cos) / 2``."""
    kernel = [[(1 + cosine(x, y)) / 2 for y in rows] for x in rows]
    return [[each / math.fsum(row) for each in row] for row in kernel]


def pkt(student: Batch, teacher: Batch) -> float:
    q, p = neighbours(student), neighbours(teacher)
    return mean([kullback_leibler(a, b) for a, b in zip(p, q, strict=True)])


def cckd(student: Batch, teacher: Batch, gamma: float = 0.4) -> float:
    """The Gaussian kernel's series up to the second power."""

    def kernel(x: Vector, y: Vector) -> float:
        c = 2 * gamma * cosine(x, y)
        return math.exp(-2 * gamma) * (1 + c + c * c / 2)

    places = list(product(range(len(student)), repeat=2))
    return mean([(kernel(student[i], student[j]) - kernel(teacher[i], teacher[j])) ** 2 for i, j in places])


def huber(x: float, y: float) -> float:
    gap = abs(x - y)
    return gap * gap / 2 if gap < 1 else gap - 0.5


def rkd_distance(student: Batch, teacher: Batch) -> float:
    """Over all pairs, a row with itself among them."""

    def relative(rows: Batch) -> list[float]:
        between = [norm(minus(x, y)) for x in rows for y in rows]
        return [each * (len(between) - len(rows)) / math.fsum(between) for each in between]

    return mean(list(map(huber, relative(student), relative(teacher))))


def rkd_angle(student: Batch, teacher: Batch) -> float:
    """Over all triples; where two of the three are one row there is no angle, which counts as no error."""
    count, sums = len(student), []
    for i, j, k in product(range(count), repeat=3):
        if i in (j, k):
            continue
        ours, theirs = (cosine(minus(x[j], x[i]), minus(x[k], x[i])) for x in (student, teacher))
        sums.append(huber(ours, theirs))
    return math.fsum(sums) / count**3


def soft_targets(logits: Vector, teacher: Vector, temperature: float) -> float:
    p, q = (softmax([each / temperature for each in scores]) for scores in (teacher, logits))
    return temperature**2 * kullback_leibler(p, q)


def average_precision(scores: Vector, relevant: Sequence[bool]) -> float:
    """Equal scores rank as they stand."""
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    hits = [rank for rank, place in enumerate(order, 1) if relevant[place]]
    return mean([found / rank for found, rank in enumerate(hits, 1)])


def compose(teacher: Vector, video: Vector, weight: Batch, bias: Vector) -> list[float]:
    """Eq. 1: what the residual adds to the teacher's embedding."""
    joined = [*(a / norm(teacher) for a in teacher), *(a / norm(video) for a in video)]
    return [x + dot(row, joined) + b for x, row, b in zip(teacher, weight, bias, strict=True)]
