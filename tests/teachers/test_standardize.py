from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccl_cli.errors import DataError
from ccl_cli.teachers.standardize import Moments, eigen, fit, hadamard, isotropic
from tests.helpers.golden import assert_close, load

EXACT = ["d2", "d12", "d28"]


def moments_of(value, chunk=7):
    made = Moments(value.shape[1])
    for rows in value.split(chunk):
        made.add(rows)
    return made


def embeddings(rows=40, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    return value @ torch.randn(dim, dim, generator=generator, dtype=torch.float64) + 100


@pytest.mark.parametrize("case", EXACT)
def test_phi_s_equals_the_reference(shared, case):
    golden = {name.removeprefix(f"{case}_"): value for name, value in load(shared, "phi_s").items()}
    moments = moments_of(golden["X"])
    assert_close(moments.mean, golden["mean"], 1e-9)
    values, vectors = eigen(moments.covariance)
    assert_close(values, golden["eig"], 1e-9)
    assert_close(values.mean().sqrt(), golden["phi"], 1e-9)
    assert torch.equal(hadamard(len(values)).to(torch.int8), golden["signs"])
    assert_close(isotropic(values, golden["U"]), golden["W"], 1e-9)
    assert_close(isotropic(values, vectors), golden["W_canon"], 1e-8)
    # By the reference's own signs of the eigenvectors, which any may choose.
    transform = fit("phi_s", moments, "t")
    signs = (vectors * golden["U"]).sum(dim=0).sign()
    by_theirs = isotropic(values, vectors * signs)
    assert_close((golden["X"] - moments.mean) @ by_theirs.mT, golden["Y"], 1e-8)
    assert_close(transform(golden["X"]), (golden["X"] - golden["mean"]) @ golden["W_canon"].mT, 1e-8)


def test_there_are_signs_for_the_sizes_of_the_reference_and_they_are_equal(shared):
    golden = load(shared, "phi_s")
    exact = set(golden["exact_dims_upto_160"].tolist())
    assert {size for size in range(1, 161) if hadamard(size) is not None} == exact
    for size in (16, 36, 40, 48, 76):
        assert torch.equal(hadamard(size).to(torch.int8), golden[f"d{size}_signs"])


@given(seed=st.integers(0, 10_000), dim=st.integers(1, 30), rows=st.integers(2, 60))
def test_phi_s_turns_and_scales_to_variances_of_one(seed, dim, rows):
    value = embeddings(rows, dim, seed)
    transform = fit("phi_s", moments_of(value), "t")
    result = transform(value)
    torch.testing.assert_close(result.mean(dim=0), torch.zeros_like(result[0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(result.var(dim=0), torch.ones_like(result[0]), rtol=1e-8, atol=0)
    product = transform.factor.mT @ transform.factor
    expected = torch.eye(len(product), dtype=torch.float64) / value.var(dim=0).mean()
    torch.testing.assert_close(product, expected, rtol=1e-8, atol=1e-10 * expected.max().item())


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_moments_of_chunks_are_those_of_all(chunk):
    value = 1e6 + embeddings()
    moments = moments_of(value, chunk)
    assert moments.count == 40
    assert_close(moments.mean, value.mean(dim=0), 1e-14)
    assert_close(moments.covariance, value.mT.cov(), 1e-9)


def test_closed_forms():
    value = torch.tensor([[1.0, 5.0, 2.0], [3.0, 5.0, -4.0]])
    moments = moments_of(value)
    assert torch.equal(fit("none", moments, "t")(value), value)
    assert fit("center", moments, "t")(value).tolist() == [[-1, 0, 3], [1, 0, -3]]
    half = math.sqrt(0.5)
    expected = torch.tensor([[-half, 0, half], [half, 0, -half]])  # one dimension never moves
    torch.testing.assert_close(fit("zscore", moments, "t")(value), expected)


@pytest.mark.parametrize("kind", ["center", "zscore", "phi_s"])
@pytest.mark.parametrize(
    ("rows", "message"), [(0, "0 embeddings"), (1, "1 embeddings"), (3, "the same embedding")]
)
def test_too_few_or_equal_embeddings_are_refused_by_the_teachers_name(kind, rows, message):
    with pytest.raises(DataError, match=f"audio:t has {message}"):
        fit(kind, moments_of(torch.ones(rows, 4)), "audio:t")
