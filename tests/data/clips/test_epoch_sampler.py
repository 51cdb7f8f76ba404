from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.errors import RecipeError


@given(
    videos=st.integers(1, 40),
    per_process=st.integers(1, 5),
    epochs=st.integers(1, 3),
    processes=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_video_is_seen_each_epoch_and_every_batch_is_full(
    videos, per_process, epochs, processes, accumulation, seed
):
    batch = per_process * processes * accumulation
    samplers = [
        EpochSampler(videos, batch, epochs, seed, accumulation, rank, processes) for rank in range(processes)
    ]
    draws = [list(sampler) for sampler in samplers]
    assert {len(micro) for micros in draws for micro in micros} == {per_process}
    assert all(len(micros) == len(sampler) for micros, sampler in zip(draws, samplers, strict=True))
    for epoch in range(epochs):
        seen = [d.row for micros in draws for micro in micros for d in micro if d.epoch == epoch]
        assert set(seen) == set(range(videos))
        assert len(seen) < videos + batch
    steps = defaultdict(list)
    for draw in (each for micros in draws for micro in micros for each in micro):
        steps[draw.step].append(draw)
    for step in steps.values():  # no two draws alike; repeated only where the split is too small
        assert len(set(step)) == batch
        assert {draw.repeat for draw in step} == set(range(-(-batch // videos)))


@given(start=st.integers(0, 12), accumulation=st.sampled_from([1, 2]))
def test_starting_later_gives_the_rest_of_the_same_sequence(start, accumulation):
    whole = EpochSampler(10, 4, 4, seed=5, accumulation=accumulation)
    rest = EpochSampler(10, 4, 4, seed=5, accumulation=accumulation, start=start)
    assert list(rest) == list(whole)[start * accumulation :]


def test_two_processes_together_take_the_rows_of_one():
    one = list(EpochSampler(23, 8, 2, seed=1, accumulation=2))
    two = [list(EpochSampler(23, 8, 2, seed=1, accumulation=2, rank=r, processes=2)) for r in range(2)]
    assert [a + b for a, b in zip(*two, strict=True)] == one


def test_seed_and_epoch_decide_the_order():
    orders = [[[d.row for d in micro] for micro in EpochSampler(50, 50, 2, seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert len({tuple(order) for epochs in orders for order in epochs}) == 4


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(RecipeError, match="multiple of 4"):
        EpochSampler(10, 6, 1, accumulation=2, processes=2)
