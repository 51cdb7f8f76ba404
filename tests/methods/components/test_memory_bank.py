from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ccl_cli.methods.components.contrast import NCELoss, NegativeSampler, softmax_loss
from ccl_cli.methods.components.memory_bank import MemoryBank, ShardedMemoryBank
from tests.methods.distilling import WITH_BANKS, Example, build, run


def test_an_anchor_with_fewer_negatives_counts_only_those():
    scores = torch.randn(2, 6, dtype=torch.float64)
    wide = scores, torch.tensor([[True] * 3 + [False] * 2] * 2)
    narrow = scores[:, :4], torch.ones(2, 3, dtype=torch.bool)
    present = torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(softmax_loss(*wide), softmax_loss(*narrow))
    torch.testing.assert_close(NCELoss(9)(*wide, present), NCELoss(9)(*narrow, present))


def test_z_is_fixed_by_the_first_batch_that_has_rows_or_follows():
    scores, drawn = torch.full((4, 6), 3.0, dtype=torch.float64), torch.ones(4, 5, dtype=torch.bool)
    nobody, everyone = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    first, second = 20 * math.exp(3), 20 * (0.75 * math.exp(3) + 0.25 * math.exp(4))
    for module, after in ((NCELoss(20), first), (NCELoss(20, momentum=0.75), second)):
        assert torch.isfinite(module(scores, drawn, nobody)).all()
        assert module.log_z.isnan()
        module(scores, drawn, everyone)
        assert module.log_z.exp().item() == pytest.approx(first)
        module(scores + 1, drawn, everyone)
        assert module.log_z.exp().item() == pytest.approx(after)


def test_an_update_moves_the_entries_of_the_batch_once_by_their_first_present_embedding():
    bank, embedding = MemoryBank(10, 4, 0.5), nn.functional.normalize(torch.randn(6, 4))
    before = bank.entries.clone()
    rows = torch.tensor([2, 5, 7, 3, 3, 3])
    bank.update(rows, embedding, torch.tensor([True, True, False, False, True, True]))
    moved = nn.functional.normalize(before[[2, 5, 3]] + embedding[[0, 1, 4]])
    torch.testing.assert_close(bank.entries[[2, 5, 3]], moved)
    others = [0, 1, 4, 6, 7, 8, 9]
    assert torch.equal(bank.entries[others], before[others])
    assert bank.absent.tolist() == [row == 7 for row in range(10)]


def test_a_sharded_bank_begins_as_an_ordinary_one_and_so_does_what_is_built_next():
    built = []
    for cls in (MemoryBank, ShardedMemoryBank):
        torch.manual_seed(0)
        built.append((cls(10, 4, 0.5), nn.Linear(2, 2)))
    (ordinary, layer), (sharded, same_layer) = built
    assert torch.equal(layer.weight, same_layer.weight)
    sharded.shard()  # one process: its share is everything
    assert torch.equal(sharded.get_extra_state(), ordinary.entries)


# ---- draws

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2, 0])


@pytest.mark.parametrize("negatives", ["other_class", "other_instance", "uniform"])
def test_negatives_are_distinct_and_of_the_right_kind(negatives):
    absent = torch.arange(8) == 4
    sampler, rows = NegativeSampler(LABELS, 16384, negatives), torch.tensor([0, 2, 5])
    candidates, drawn = sampler.draw(rows, absent)
    for row, (own, *others), mask in zip(rows.tolist(), candidates.tolist(), drawn, strict=True):
        found = torch.tensor(others)[mask].tolist()
        expected = {
            "other_class": {at for at in range(8) if LABELS[at] != LABELS[row]},
            "other_instance": set(range(8)) - {row},
            "uniform": set(range(8)),
        }[negatives]
        assert own == row
        assert sorted(found) == sorted(expected - {4})


def test_draws_are_uniform_and_differ_from_step_to_step():
    sampler, absent = NegativeSampler(LABELS, 2, "other_instance"), torch.zeros(8, dtype=torch.bool)
    counts = torch.zeros(8)
    for _ in range(3000):
        counts.index_add_(0, sampler.draw(torch.tensor([3]), absent).candidates[0, 1:], torch.ones(2))
    share = counts / 6000
    assert share[3] == 0
    assert (share[[0, 1, 2, 4, 5, 6, 7]] - 1 / 7).abs().max() < 0.02


def test_a_positive_may_be_any_video_of_the_class():
    sampler = NegativeSampler(LABELS, 2, "other_class", "same_class")
    absent = torch.arange(8) == 7
    assert {sampler.draw(torch.tensor([1]), absent).candidates[0, 0].item() for _ in range(100)} == {0, 1}


# ---- the methods


@pytest.mark.parametrize("variant", WITH_BANKS)
def test_rows_without_a_teacher_and_the_teachers_half_give_the_student_nothing(variant):
    example = Example(dims=(6,), absent=((2, 5),))
    _, (gradient, *_) = run(build(variant, example), example)
    assert gradient[[2, 5]].abs().sum() == 0
    assert gradient[[0, 1, 3, 4, 6]].abs().sum() > 0
    leaves = example.leaves()
    terms = build(variant, example)(example.student(leaves), example.embeddings(), example.batch)
    gradient = torch.autograd.grad(terms["teacher/t0"], leaves[0], allow_unused=True)[0]
    assert gradient is None or gradient.abs().sum() == 0


@pytest.mark.parametrize("variant", ["crd", "cmc nce"])
def test_the_lowest_temperature_is_finite(variant):
    example = Example()
    method = build(variant, example, temperature=0.005)
    for _ in range(2):
        assert run(method, example)[1][0].isfinite().all()


def test_cmc_full_graph_contrasts_teachers_with_each_other():
    example = Example()
    terms, _ = run(build("cmc nce", example), example)
    pairs = {f"{side}/t{k}" for side in ("student", "teacher") for k in (0, 1)}
    assert set(terms) == pairs | {"t0/t1", "t1/t0"}
    assert not list(build("cmc", Example(dims=(6,)), heads="identity").parameters())
