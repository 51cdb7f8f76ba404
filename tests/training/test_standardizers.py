from __future__ import annotations

import pytest
import torch

from ccl_cli.errors import RecipeError
from ccl_cli.teachers import Embedding
from ccl_cli.teachers.standardize import Moments, fit
from ccl_cli.training.standardizers import Standardizer
from ccl_cli.training.train import train
from tests.helpers.golden import assert_close
from tests.training.cache.test_cache import AUDIO, IMAGE
from tests.training.runs import lines, recipe


def embeddings():
    generator = torch.Generator().manual_seed(0)
    value, present = (
        3 * torch.randn(30, 4, generator=generator) + 5,
        torch.rand(30, generator=generator) < 0.7,
    )
    value[~present] = torch.nan  # absent rows may hold anything
    return value, present


def state(run, step):
    return torch.load(run / "state" / f"step-{step:09d}.pt", weights_only=True)["distiller"]


@pytest.mark.parametrize("kind", ["center", "zscore"])
def test_a_running_standardizer_has_the_statistics_of_all_rows_present_so_far(kind):
    value, present = embeddings()
    standardizer, moments = Standardizer(kind, 4, None), Moments(4)
    for chunk, there in zip(value.split(10), present.split(10), strict=True):
        moments.add(chunk[there])
        result = standardizer(Embedding(chunk, there))
        expected = fit(kind, moments, "t")(chunk)
        torch.testing.assert_close(result.value[there], expected[there], rtol=1e-5, atol=1e-5)
        assert result.value[~there].abs().sum() == 0
    count = standardizer.count.clone()
    standardizer.eval()(Embedding(value, present))
    standardizer.train()(Embedding(value, torch.zeros_like(present)))
    assert standardizer.count == count == present.sum()


@pytest.mark.parametrize("kind", ["center", "zscore", "phi_s"])
def test_a_fixed_standardizer_does_not_follow_and_a_running_one_put_in_its_place_neither(kind):
    value, present = embeddings()
    moments = Moments(4)
    moments.add(value[present])
    fixed = Standardizer(kind, 4, fit(kind, moments, "t"))
    result = fixed(Embedding(value, present))
    assert_close(result.value[present].double(), fit(kind, moments, "t")(value[present].double()), 1e-5)
    assert fixed.count == 0
    if kind != "phi_s":
        other = Standardizer(kind, 4, None)
        other.load_state_dict(fixed.state_dict())
        assert torch.equal(other(Embedding(value, present)).value, result.value)


@pytest.mark.parametrize("rows", [1, 6])
def test_rows_that_are_equal_are_finite(rows):
    equal = Embedding(torch.full((rows, 4), 3.0), torch.ones(rows, dtype=torch.bool))
    assert Standardizer("zscore", 4, None)(equal).value.abs().sum() == 0


def test_a_live_teacher_is_standardised_with_all_rows_so_far(clips_folder):
    plain, changed = (
        train(recipe(clips_folder, standardize=kind, optim={"lr": 1e-3})) for kind in ("none", "zscore")
    )
    assert lines(plain)[0]["loss"] != lines(changed)[0]["loss"]
    assert state(changed, 6)["standardizers.each.0.count"] == 24  # of 12 videos, 8 have sound; three epochs


def test_a_cached_teacher_is_standardised_exactly_and_a_live_one_not_by_phi_s(clips_folder):
    changes = {"teachers": [AUDIO, IMAGE], "optim": {"lr": 1e-3}, "train": {"max_steps": 1}}
    run = train(recipe(clips_folder, **changes, standardize="phi_s", cache={"use": "build", "views": 2}))
    for number in (0, 1):
        factor = state(run, 1)[f"standardizers.each.{number}.factor"]
        product = factor @ factor.mT
        assert_close(product, product[0, 0] * torch.eye(len(product)), 1e-4)
    changes["cache"] = {"use": "off"}
    with pytest.raises(RecipeError, match=r"phi_s needs all embeddings of audio:small .* not cached"):
        train(recipe(clips_folder, **changes, standardize="phi_s"))
    with pytest.raises(RecipeError, match="there is no teacher 'audio:cnn'"):
        train(recipe(clips_folder, **changes, standardize={"audio:cnn": "zscore"}))
