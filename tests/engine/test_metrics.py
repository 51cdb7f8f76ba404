from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity

from ccl_cli.engine.metrics import recognition, retrieval


@given(seed=st.integers(0, 10_000), classes=st.integers(6, 9))
def test_recognition_equals_scikit_learn(seed, classes):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 30)])
    scores = rng.random((len(labels), classes))
    names = [f"c{k}" for k in range(classes)]
    ours = recognition(torch.from_numpy(scores), torch.from_numpy(labels), names)
    every = np.arange(classes)
    assert ours["top1"] == pytest.approx(
        100 * top_k_accuracy_score(labels, scores, k=1, labels=every), abs=1e-9
    )
    assert ours["top5"] == pytest.approx(
        100 * top_k_accuracy_score(labels, scores, k=5, labels=every), abs=1e-9
    )
    expected = 100 * balanced_accuracy_score(labels, scores.argmax(1))
    assert ours["mean_class"] == pytest.approx(expected, abs=1e-9)


@given(seed=st.integers(0, 10_000), queries=st.integers(1, 20), gallery=st.integers(3, 40))
def test_retrieval_equals_a_brute_force_over_scikit_learn(seed, queries, gallery):
    rng = np.random.default_rng(seed)
    q, g = rng.normal(size=(queries, 5)), rng.normal(size=(gallery, 5))
    q_labels, g_labels = rng.integers(0, 4, queries), rng.integers(0, 4, gallery)
    ours = retrieval(*map(torch.from_numpy, (q, q_labels, g, g_labels)))
    similarity = cosine_similarity(q, g)
    hits, precisions = {1: 0, 5: 0, 10: 0}, []
    for row, label in zip(similarity, q_labels, strict=True):
        relevant = g_labels == label
        ranked = relevant[np.argsort(-row)]
        for k in hits:
            hits[k] += ranked[:k].any()
        precisions.append(average_precision_score(relevant, row) if relevant.any() else 0.0)
    for k, count in hits.items():
        assert ours[f"r{k}"] == pytest.approx(100 * count / queries, abs=1e-9)
    assert ours["map"] == pytest.approx(100 * np.mean(precisions), abs=1e-9)


def test_a_video_without_scores_is_an_error_not_a_gap():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [float("nan")] * 2, [0.6, 0.4]])
    figures = recognition(scores, torch.tensor([0, 1, 0, 1]), ["a", "b"])
    assert figures["top1"] == 50.0
    assert figures["per_class"]["a"] == {"top1": 50.0, "videos": 2}
    assert figures["top5"] == 75.0


def test_a_query_without_a_feature_is_an_error_and_a_gallery_gap_cannot_be_found():
    nan = [float("nan")] * 2
    queries = torch.tensor([[1.0, 0.0], nan])
    gallery = torch.tensor([[1.0, 0.1], nan, [0.0, 1.0]])
    figures = retrieval(queries, torch.tensor([0, 0]), gallery, torch.tensor([0, 0, 1]))
    assert figures == {"r1": 50.0, "r5": 50.0, "r10": 50.0, "map": 50.0}
    nothing = retrieval(queries, torch.tensor([0, 0]), torch.tensor([nan]), torch.tensor([0]))
    assert nothing == {"r1": 0.0, "r5": 0.0, "r10": 0.0, "map": 0.0}


def test_more_queries_than_one_block():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(600, 8, generator=rng)
    labels = torch.randint(0, 5, (600,), generator=rng)
    figures = retrieval(features, labels, features, labels)
    assert figures["r1"] == 100.0
