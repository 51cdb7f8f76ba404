from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from ccl_cli.evaluation.metrics import ranks, recognition, retrieval, score_blocks


@given(seed=st.integers(0, 10_000), classes=st.integers(6, 9))
def test_recognition_equals_scikit_learn(seed, classes):
    rng, every = np.random.default_rng(seed), np.arange(classes)
    labels = np.concatenate([every, rng.integers(0, classes, 30)])
    scores = rng.random((len(labels), classes))
    ours = recognition(torch.from_numpy(scores), torch.from_numpy(labels), [f"c{k}" for k in every])
    top1, top5 = (100 * top_k_accuracy_score(labels, scores, k=k, labels=every) for k in (1, 5))
    theirs = {"top1": top1, "top5": top5}
    theirs["mean_class"] = 100 * balanced_accuracy_score(labels, scores.argmax(1))
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)


def test_retrieval_equals_pytorch_metric_learning():
    """Their mean average precision is over all relevant items where k is the gallery's size."""
    rng = np.random.default_rng(0)
    arrays = (
        rng.normal(size=(40, 6)),
        rng.integers(0, 5, 40),
        rng.normal(size=(90, 6)),
        rng.integers(0, 5, 90),
    )
    calculator = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision"),
        k=90,
        knn_func=CustomKNN(CosineSimilarity(), batch_size=64),
    )
    tensors = [torch.from_numpy(each) for each in arrays]
    theirs = calculator.get_accuracy(*tensors, ref_includes_query=False)
    ours = retrieval(*tensors)
    assert ours["r1"] == pytest.approx(100 * theirs["precision_at_1"], abs=1e-9)
    assert ours["map"] == pytest.approx(100 * theirs["mean_average_precision"], abs=1e-6)


def test_a_video_without_scores_is_an_error_not_a_gap():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [float("nan")] * 2, [0.6, 0.4]])
    figures = recognition(scores, torch.tensor([0, 1, 0, 1]), ["a", "b"])
    assert (figures["top1"], figures["top5"]) == (50.0, 75.0)
    assert figures["per_class"]["a"] == {"top1": 50.0, "videos": 2}


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_query_without_a_feature_is_an_error_and_a_gallery_gap_cannot_be_found(bad):
    queries, labels = torch.tensor([[1.0, 0.0], [bad, 1.0]]), torch.tensor([0, 0])
    gallery = torch.tensor([[1.0, 0.1], [bad, 1.0], [0.0, 1.0]])
    figures = retrieval(queries, labels, gallery, torch.tensor([0, 0, 1]))
    assert figures == dict.fromkeys(("r1", "r5", "r10", "map"), 50)
    assert set(retrieval(queries, labels, gallery[1:2], torch.tensor([0])).values()) == {0}


@pytest.mark.parametrize("scores_at_once", [1, 700, 701, 50_000, 10**9])
def test_how_many_scores_are_held_at_once_changes_nothing(scores_at_once):
    rng = torch.Generator().manual_seed(0)
    queries, gallery = torch.randn(1000, 8, generator=rng, dtype=torch.float64).split([300, 700])
    queries[::7], gallery[::5] = float("nan"), float("nan")
    labels = torch.randint(0, 5, (700,), generator=rng)
    figures = retrieval(queries, labels[:300], gallery, labels, scores_at_once=scores_at_once)
    expected = _by_sorting(queries, labels[:300], gallery, labels)
    assert figures == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("queries", [1, 63, 64, 200])
@pytest.mark.parametrize("gallery", [1, 2048, 4100])
def test_blocks_of_scores_are_the_products_however_many_there_are(queries, gallery):
    rng = torch.Generator().manual_seed(0)
    asked, known = torch.randn(queries + gallery, 24, generator=rng).split([queries, gallery])
    blocks = [(rows, scores.clone()) for rows, scores in score_blocks(asked, known, 150 * gallery)]
    assert [row for rows, _ in blocks for row in range(rows.start, rows.stop)] == list(range(queries))
    assert max(len(scores) for _, scores in blocks) <= 150  # memory
    products = torch.cat([scores for _, scores in blocks]).double()
    torch.testing.assert_close(products, asked.double() @ known.double().T, atol=1e-5, rtol=0)


def check_ranks(scores, relevant):
    expected = np.flatnonzero(relevant[np.argsort(-scores, kind="stable")]) + 1
    assert np.array_equal(ranks(scores, relevant), expected)


@given(seed=st.integers(0, 10_000), values=st.integers(1, 5), items=st.integers(1, 200))
def test_equal_scores_rank_as_they_stand(seed, values, items):
    rng = np.random.default_rng(seed)
    check_ranks(rng.choice(rng.normal(size=values), items).astype(np.float32), rng.random(items) < 0.3)


@pytest.mark.parametrize("spread", [1.0, 1e-6, 1e-30, 1e-38, 1e30])
@pytest.mark.parametrize("items", [2, 1000, 200_000])
def test_ranks_equal_a_stable_sort_at_every_size_and_spread(items, spread):
    rng = np.random.default_rng(items)
    scores = (0.9 + spread * rng.normal(size=items)).astype(np.float32)
    scores[: items // 2] -= np.float32(0.9)  # half of them where float32 is finest
    relevant = rng.random(items) < 0.01
    relevant[-1] = True
    check_ranks(scores, relevant)


def _by_sorting(queries, query_labels, gallery, gallery_labels):
    finite = torch.isfinite(gallery).all(dim=1)
    scores = F.normalize(queries, dim=1) @ F.normalize(gallery[finite], dim=1).T
    sums = torch.zeros(4, dtype=torch.float64)
    for row, label in zip(scores, query_labels, strict=True):
        if row.isfinite().all():
            relevant = gallery_labels[finite][row.argsort(descending=True, stable=True)] == label
            precision = (relevant.cumsum(0).double() / torch.arange(1, len(row) + 1))[relevant].mean()
            sums += torch.stack([*(relevant[:k].any().double() for k in (1, 5, 10)), precision])
    return dict(zip(("r1", "r5", "r10", "map"), (100 * sums / len(queries)).tolist(), strict=True))
