from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.methods.cmc import CMC, CMCOptions
from ccl_cli.methods.components.contrast import (
    ContrastiveLoss,
    ContrastSamples,
    NCELoss,
    NegativeSampler,
    View,
    softmax_loss,
)
from ccl_cli.methods.components.memory_bank import MemoryBank, ShardedMemoryBank
from ccl_cli.methods.crd import CRD, CRDOptions, CRDPair
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from tests.helpers.golden import assert_close, load

AUDIO, IMAGE = TeacherInfo("audio:a", "audio", 7), TeacherInfo("image:i", "image", 6)


def contrast_of(index):
    return ContrastSamples(index[:, 0], index[:, 1:], torch.ones_like(index[:, 1:], dtype=torch.bool))


# ---- against the references


@pytest.fixture
def crd(shared):
    golden = load(shared, "crd")
    setting = Setting(8, 4, torch.zeros(int(golden["N"]), dtype=torch.long), (AUDIO,))
    pair = CRDPair(CRDOptions(dim=6, temperature=0.07), setting, 7).double()
    with torch.no_grad():
        for side, layer in (("s", pair.project_student), ("t", pair.project_teacher)):
            for part in ("weight", "bias"):
                getattr(layer, part).copy_(golden[f"param_embed_{side}.linear.{part}"])
        pair.student_bank.entries.copy_(golden["mem_s_init"])
        pair.teacher_bank.entries.copy_(golden["mem_t_init"])
    return golden, pair


def test_crd_takes_two_steps_as_the_reference(crd):
    golden, pair = crd
    for step in ("step1", "step2"):
        pair.zero_grad()
        student = nn.Parameter(golden[f"{step}_f_s"])
        teacher = nn.Parameter(golden[f"{step}_f_t"])
        present = torch.ones(4, dtype=torch.bool)
        losses = pair(
            student, teacher, present, golden[f"{step}_idx"], contrast_of(golden[f"{step}_contrast_idx"])
        )
        loss = sum(losses).mean()
        loss.backward()
        assert_close(loss.detach(), golden[f"{step}_loss"], 1e-9)
        assert_close(student.grad, golden[f"{step}_grad_f_s"], 1e-9)
        assert_close(teacher.grad, golden[f"{step}_grad_f_t"], 1e-9)
        for side, layer in (("s", pair.project_student), ("t", pair.project_teacher)):
            for part in ("weight", "bias"):
                assert_close(
                    getattr(layer, part).grad, golden[f"{step}_grad_embed_{side}.linear.{part}"], 1e-9
                )
        assert_close(pair.student_bank.entries, golden[f"{step}_mem_s_after"], 1e-9)
        assert_close(pair.teacher_bank.entries, golden[f"{step}_mem_t_after"], 1e-9)
        for side, nce in zip("st", pair.loss.nce, strict=True):
            assert_close(nce.log_z.exp(), golden[f"{step}_Z_{side}"], 1e-9)


@pytest.mark.parametrize("loss", ["softmax", "nce"])
def test_cmc_takes_two_steps_as_the_reference(shared, loss):
    golden = load(shared, "cmc")
    videos, dim = golden["mem_1_init"].shape
    options = CMCOptions(temperature=float(golden["T"]))
    labels = torch.zeros(videos, dtype=torch.long)
    pair = ContrastiveLoss(options, labels, options.num_negatives, options.negatives, loss=loss)
    banks = [MemoryBank(videos, dim, float(golden["momentum"])).double() for _ in range(2)]
    for bank, number in zip(banks, (1, 2), strict=True):
        bank.entries.copy_(golden[f"mem_{number}_init"])
    for step in ("step1", "step2"):
        codes = [nn.Parameter(golden[f"{step}_v{number}"]) for number in (1, 2)]
        present = torch.ones(len(codes[0]), dtype=torch.bool)
        views = [View(code, present, bank) for code, bank in zip(codes, banks, strict=True)]
        rows = golden[f"{step}_idx"]
        values = [value.mean() for value in pair(*views, rows, contrast_of(golden[f"{step}_contrast_idx"]))]
        sum(values).backward()
        for number, value, code, bank in zip((1, 2), values, codes, banks, strict=True):
            bank.update(rows, code, present)
            assert_close(value.detach(), golden[f"{loss}_{step}_loss_{number}"], 1e-9)
            assert_close(code.grad, golden[f"{loss}_{step}_grad_v{number}"], 1e-9)
            assert_close(bank.entries, golden[f"{loss}_{step}_mem_{number}_after"], 1e-9)
            if loss == "nce":
                assert_close(pair.nce[number - 1].log_z.exp(), golden[f"nce_{step}_Z_{number}"], 1e-9)


# ---- closed forms


def equal_scores(rows, count):
    scores = torch.full((rows, 1 + count), 3.0, dtype=torch.float64)
    return scores, torch.ones(rows, count, dtype=torch.bool)


def test_noise_contrast_of_equal_scores():
    value = NCELoss(20)(*equal_scores(4, 5), torch.ones(4, dtype=torch.bool))
    expected = math.log(1 + 5) + 5 * math.log(1 + 1 / 5)  # every P is 1 / N
    assert expected == pytest.approx(2.703367, abs=1e-6)
    torch.testing.assert_close(value, torch.full((4,), expected, dtype=torch.float64), rtol=1e-5, atol=0)


@given(st.integers(1, 30))
def test_softmax_contrast_of_equal_scores(count):
    value = softmax_loss(*equal_scores(3, count))
    torch.testing.assert_close(value, torch.full((3,), math.log(1 + count), dtype=torch.float64))


def test_an_anchor_with_fewer_negatives_counts_only_those():
    scores = torch.randn(2, 6, dtype=torch.float64)
    wide = scores, torch.tensor([[True] * 3 + [False] * 2] * 2)
    narrow = scores[:, :4], torch.ones(2, 3, dtype=torch.bool)
    present = torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(softmax_loss(*wide), softmax_loss(*narrow))
    torch.testing.assert_close(NCELoss(9)(*wide, present), NCELoss(9)(*narrow, present))


def test_z_is_fixed_by_the_first_batch_that_has_rows_or_follows():
    scores, drawn = equal_scores(4, 5)
    nobody, everyone = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    fixed, follows = NCELoss(20), NCELoss(20, momentum=0.75)
    for module in (fixed, follows):
        assert torch.isfinite(module(scores, drawn, nobody)).all()
        assert module.log_z.isnan()
        module(scores, drawn, everyone)
        assert module.log_z.exp().item() == pytest.approx(20 * math.exp(3))
        module(scores + 1, drawn, everyone)
    assert fixed.log_z.exp().item() == pytest.approx(20 * math.exp(3))
    assert follows.log_z.exp().item() == pytest.approx(20 * (0.75 * math.exp(3) + 0.25 * math.exp(4)))


# ---- banks


def test_an_update_moves_only_the_batch_s_entries_to_unit_length():
    bank = MemoryBank(10, 4, 0.5)
    before = bank.entries.clone()
    rows, present = torch.tensor([2, 5, 7]), torch.tensor([True, True, False])
    bank.update(rows, torch.nn.functional.normalize(torch.randn(3, 4)), present)
    torch.testing.assert_close(bank.entries[[2, 5]].norm(dim=1), torch.ones(2))
    others = [0, 1, 3, 4, 6, 7, 8, 9]
    assert torch.equal(bank.entries[others], before[others])
    assert bank.absent.tolist() == [row == 7 for row in range(10)]


def test_a_video_that_stands_twice_in_a_batch_is_moved_once_by_its_first_present_embedding():
    embedding = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    bank, other = MemoryBank(5, 4, 0.5), MemoryBank(5, 4, 0.5)
    other.entries.copy_(bank.entries)
    bank.update(torch.tensor([3, 3, 3]), embedding, torch.tensor([False, True, True]))
    other.update(torch.tensor([3]), embedding[1:2], torch.tensor([True]))
    assert torch.equal(bank.entries, other.entries)
    assert not bank.absent.any()


def test_a_sharded_bank_begins_as_an_ordinary_one_and_so_does_what_is_built_next(monkeypatch):
    monkeypatch.setattr("ccl_cli.methods.components.memory_bank._BLOCK", 3)
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
    absent = torch.zeros(8, dtype=torch.bool).index_fill(0, torch.tensor([4]), True)
    sampler, rows = NegativeSampler(LABELS, 16384, negatives), torch.tensor([0, 2, 5])
    contrast = sampler.draw(rows, absent)
    for row, negative, drawn in zip(rows.tolist(), contrast.negative, contrast.drawn, strict=True):
        found = negative[drawn].tolist()
        assert len(set(found)) == len(found)
        expected = {
            "other_class": {at for at in range(8) if LABELS[at] != LABELS[row]},
            "other_instance": set(range(8)) - {row},
            "uniform": set(range(8)),
        }[negatives]
        assert set(found) == expected - {4}


def test_draws_are_uniform_and_differ_from_step_to_step():
    sampler, absent = NegativeSampler(LABELS, 2, "other_instance"), torch.zeros(8, dtype=torch.bool)
    counts = torch.zeros(8)
    for _ in range(3000):
        counts.index_add_(0, sampler.draw(torch.tensor([3]), absent).negative[0], torch.ones(2))
    assert counts[3] == 0
    share = counts[[0, 1, 2, 4, 5, 6, 7]] / 6000
    assert (share - 1 / 7).abs().max() < 0.02


def test_a_positive_may_be_any_video_of_the_class():
    sampler = NegativeSampler(LABELS, 2, "other_class", "same_class")
    absent = torch.zeros(8, dtype=torch.bool).index_fill(0, torch.tensor([7]), True)
    found = {sampler.draw(torch.tensor([1]), absent).positive.item() for _ in range(100)}
    assert found == {0, 1}


# ---- the methods


def step(method, labels, present, rows=None):
    torch.manual_seed(3)
    feature = nn.Parameter(torch.randn(len(labels), 6))
    embeddings = {
        "audio:a": Embedding(torch.rand(len(labels), 7) * present[:, None], present),
        "image:i": Embedding(torch.rand(len(labels), 6), torch.ones_like(present)),
    }
    rows = torch.arange(len(labels)) if rows is None else rows
    batch = Batch(torch.empty(0), labels, rows, {}, 0)
    terms = method(StudentOutput(feature, torch.zeros(len(labels), 3)), embeddings, batch)
    sum(terms.values()).backward()
    return terms, feature.grad


METHODS = {
    "crd": lambda setting: CRD(CRDOptions(num_negatives=4), setting),
    "cmc": lambda setting: CMC(CMCOptions(num_negatives=4), setting),
    "cmc nce": lambda setting: CMC(CMCOptions(num_negatives=4, loss="nce", graph="full"), setting),
}


@pytest.mark.parametrize("options", [CRDOptions, partial(CMCOptions, loss="nce")])
def test_the_lowest_temperature_is_finite_and_a_lower_one_is_refused(options):
    labels, present = torch.tensor([0, 1, 2, 0]), torch.ones(4, dtype=torch.bool)
    lowest = options(temperature=0.005)
    method = (CRD if isinstance(lowest, CRDOptions) else CMC)(lowest, Setting(6, 3, labels, (AUDIO,)))
    for _ in range(2):
        _, grad = step(method, labels, present)
        assert torch.isfinite(grad).all()
    with pytest.raises(ValidationError, match=r"greater than or equal to 0\.005"):
        options(temperature=0.001)


@pytest.mark.parametrize("name", METHODS)
def test_a_row_without_audio_gets_nothing_from_audio(name):
    labels, present = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 0, 1, 1]).bool()
    method = METHODS[name](Setting(6, 3, labels, (AUDIO,)))
    _, grad = step(method, labels, present)
    assert grad[1].abs().sum() == 0
    assert grad[[0, 2, 3]].abs().sum() > 0


def test_a_teacher_s_half_does_not_reach_the_student():
    labels, present = torch.tensor([0, 1, 2, 0]), torch.ones(4, dtype=torch.bool)
    for make in METHODS.values():
        method = make(Setting(6, 3, labels, (AUDIO,)))
        feature = nn.Parameter(torch.randn(4, 6))
        batch = Batch(torch.empty(0), labels, torch.arange(4), {}, 0)
        embeddings = {"audio:a": Embedding(torch.rand(4, 7), present)}
        terms = method(StudentOutput(feature, torch.zeros(4, 3)), embeddings, batch)
        grad = torch.autograd.grad(terms["teacher/audio:a"], feature, allow_unused=True)[0]
        assert grad is None


def test_cmc_full_graph_contrasts_teachers_with_each_other():
    labels = torch.tensor([0, 1, 2, 0])
    method = CMC(CMCOptions(graph="full"), Setting(6, 3, labels, (AUDIO, IMAGE)))
    terms, _ = step(method, labels, torch.ones(4, dtype=torch.bool))
    assert "audio:a/image:i" in terms
    assert "image:i/audio:a" in terms


def test_cmc_identity_heads_need_equal_widths():
    labels = torch.tensor([0, 1])
    with pytest.raises(RecipeError, match="6, 7"):
        CMC(CMCOptions(heads="identity"), Setting(6, 2, labels, (AUDIO,)))
    method = CMC(CMCOptions(heads="identity"), Setting(6, 2, labels, (IMAGE,)))
    assert not list(method.parameters())
