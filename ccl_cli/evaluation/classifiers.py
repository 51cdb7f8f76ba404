"""Classifiers on embeddings: nearest neighbours, logistic regression, and verdicts per class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from ccl_cli.evaluation.verdicts import VERDICTS, verdict

CONFIDENCE = 0.95
PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4)
_DEFAULT_PENALTY = 0.01  # if no video can be held out for the choice
_ITERATIONS = 100

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Embeddings [N, D] float32 of the videos of a split that have one, and labels [N] int64."""

    embeddings: NDArray[np.float32]
    labels: Labels


def probe_knn(
    train: LabelledEmbeddings, test: LabelledEmbeddings, classes: Sequence[str], k: int
) -> dict[str, Any]:
    """Classify the test videos by their k nearest training videos.

    Returns:
        ``knn`` and ``chance`` (always predicting the most frequent training class) in percent, ``verdicts``,
        best class first, and ``per_class``; see :func:`probe_classes`.
    """
    predictions = predict_knn(train, test.embeddings, k)
    largest = np.bincount(train.labels, minlength=len(classes)).argmax()
    per_class = probe_classes(predictions, test.labels, train.labels, classes)
    ranked = sorted(classes, key=lambda name: -(per_class[name]["recall"] or 0))
    return {
        "knn": 100 * float((predictions == test.labels).mean()),
        "chance": 100 * float((test.labels == largest).mean()),
        "verdicts": {
            verdict: [name for name in ranked if per_class[name]["verdict"] == verdict]
            for verdict in VERDICTS
        },
        "per_class": per_class,
    }


def centre_and_normalise(
    train: NDArray[np.float32], test: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Subtract the training mean from rows [N, D] and [M, D], and normalise each row to unit length.

    Without centring, all cosines of non-negative embeddings would be close to one.
    """
    mean = train.mean(axis=0)
    return normalize(train - mean), normalize(test - mean)


def predict_knn(train: LabelledEmbeddings, queries: NDArray[np.float32], k: int) -> Labels:
    """Predict the majority class of the k nearest training videos by cosine; nearer neighbours break ties.

    Shapes: queries: [M, D]. returns: [M] int64.
    """

    def votes(distances: NDArray[Any]) -> NDArray[Any]:
        return 1 - distances / (4 * k)  # the sum of all distance terms is less than one vote

    model = KNeighborsClassifier(min(k, len(train.labels)), weights=votes, metric="cosine")
    predictions: Labels = model.fit(train.embeddings, train.labels).predict(queries)
    return predictions


def probe_linear(
    train: LabelledEmbeddings, test: LabelledEmbeddings, validation: NDArray[np.bool_]
) -> dict[str, float]:
    """Multinomial logistic regression on standardised coordinates: accuracy in percent, and penalty.

    The penalty is chosen on training videos only; the model is then fitted to all of them (Kornblith et al.
    2019, "Do Better ImageNet Models Transfer Better?": logarithmic grid, L-BFGS).

    Shapes: validation: [R, N] bool, the held-out training videos of each of R rounds.
    """
    if len(np.unique(train.labels)) == 1:
        accuracy = float((test.labels == train.labels[0]).mean())
        return {"linear": 100 * accuracy, "penalty": _DEFAULT_PENALTY}
    folds = [
        (np.flatnonzero(~held_out), np.flatnonzero(held_out))
        for held_out in validation
        if held_out.any() and len(np.unique(train.labels[~held_out])) > 1
    ]
    # scikit-learn's C multiplies the summed loss, so the penalty on the mean loss is 1 / (C N).
    strengths = {1 / (penalty * len(train.labels)): penalty for penalty in PENALTIES}
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_ITERATIONS))
    if folds:
        model = GridSearchCV(model, {"logisticregression__C": list(strengths)}, cv=folds)
    else:
        model.set_params(logisticregression__C=1 / (_DEFAULT_PENALTY * len(train.labels)))
    with warnings.catch_warnings():
        # Fits with the weakest penalties need not converge, because stronger penalties are better.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train.embeddings, train.labels)
    chosen = strengths[model.best_params_["logisticregression__C"]] if folds else _DEFAULT_PENALTY
    return {"linear": 100 * float(model.score(test.embeddings, test.labels)), "penalty": chosen}


def probe_classes(
    predictions: Labels, labels: Labels, train_labels: Labels, classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Compute recall, its interval (``low``, ``high``), ``chance`` and verdict of each class, in percent.

    Without test videos of a class, its recall and verdict are None.

    Shapes: predictions, labels: [M]. train_labels: [N].
    """
    confusion = confusion_matrix(labels, predictions, labels=np.arange(len(classes)))
    shares = np.bincount(train_labels, minlength=len(classes)) / len(train_labels)
    probes = {}
    for label, name in enumerate(classes):
        hits, videos = int(confusion[label, label]), int(confusion[label].sum())
        others = len(labels) - videos
        false_positives = (confusion[:, label].sum() - hits) / others if others else 0.0
        chance = float(max(shares[label], false_positives))
        low, high = recall_interval(hits, videos)
        probes[name] = {
            "videos": videos,
            "recall": 100 * (hits / videos) if videos else None,
            "low": 100 * low,
            "high": 100 * high,
            "chance": 100 * chance,
            "verdict": verdict(low, chance) if videos else None,
        }
    return probes


def recall_interval(hits: int, videos: int) -> tuple[float, float]:
    """Exact (Clopper-Pearson) confidence interval of a recall; [0, 1] without videos."""
    if not videos:
        return 0.0, 1.0
    low, high = binomtest(hits, videos).proportion_ci(CONFIDENCE, method="exact")
    return float(low), float(high)
