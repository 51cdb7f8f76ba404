from __future__ import annotations

import pytest
import torch

from ccl_cli.methods import unic
from ccl_cli.methods.unic import UNICHead, choose_teachers, cosine_distance, momentum, smooth_l1
from tests.helpers.golden import assert_close, load
from tests.methods.distilling import Example, build, run

NAMES = ("a", "b", "c")


@pytest.fixture
def golden(shared):
    return load(shared, "unic")


@pytest.fixture
def reference(golden, monkeypatch):
    """A function that takes a step of the method as the reference did: its rows, draws and momentum."""

    def take(method, step, draws=""):
        example = Example(8, (6, 5, 7), (), 10)
        example.feature = golden[f"{step}_x"]
        example.teachers = [golden[f"{step}_f_{name}"] for name in NAMES]
        number = int(step.removeprefix("step")) - 1
        monkeypatch.setattr(unic, "momentum", lambda progress: golden["ema_momentum"][number])
        monkeypatch.setattr(unic, "uniform_rows", lambda *given: golden[draws or f"{step}_u"].mT)
        if draws == "masked_u":
            example.present = golden["masked_present"]
        method.zero_grad()
        return run(method, example)

    return take


def method(golden, **options):
    made = build("unic", Example(8, (6, 5, 7), (), 10), hidden=12, **options)
    with torch.no_grad():
        for name, head in zip(NAMES, made.heads, strict=True):
            for key, parameter in head.named_parameters():
                parameter.copy_(golden[f"param_{name}.{key}"])
    return made


def test_three_steps_equal_the_reference(golden, reference):
    made = method(golden)
    for number in range(1, 4):
        step = f"step{number}"
        targets = [
            head.standardize(golden[f"{step}_f_{name}"]) for name, head in zip(NAMES, made.heads, strict=True)
        ]
        terms, (gradient, *_) = reference(made, step)
        assert_close(torch.stack(list(terms.values())).sum(), golden[f"{step}_loss"], 1e-9)
        assert_close(gradient, golden[f"{step}_grad_x"], 1e-9)
        losses = []
        for name, head, target in zip(NAMES, made.heads, targets, strict=True):
            assert_close(target, golden[f"{step}_target_{name}"], 1e-9)
            assert_close(head.mean, golden[f"{step}_ema_mean_{name}"], 1e-9)
            assert_close(head.std, golden[f"{step}_ema_std_{name}"], 1e-9)
            prediction = head(golden[f"{step}_x"]).detach()
            assert_close(prediction, golden[f"{step}_pred_{name}"], 1e-9)
            losses.append(torch.stack([cosine_distance(prediction, target), smooth_l1(prediction, target)]))
        losses = torch.stack(losses, dim=1)
        assert_close(losses[0], golden[f"{step}_cos_per_sample"], 1e-9)
        assert_close(losses[1], golden[f"{step}_sl1_per_sample"], 1e-9)
        everyone = torch.ones(3, 8, dtype=torch.bool)
        keep = choose_teachers(losses.sum(dim=0), everyone, golden[f"{step}_u"], 0.5)
        assert torch.equal(keep, golden[f"{step}_keep"])


@pytest.mark.parametrize(("case", "drop"), [("nodrop", 0), ("onlymax", 1)])
def test_dropping_none_or_all_but_one_equals_the_reference(golden, reference, case, drop):
    made = method(golden, drop=drop)
    for step in ("step1", "step2", "step3"):
        terms, (gradient, *_) = reference(made, step)
        assert_close(torch.stack(list(terms.values())).sum(), golden[f"{step}_{case}_loss"], 1e-9)
        assert_close(gradient, golden[f"{step}_{case}_grad_x"], 1e-9)


def test_absent_teachers_equal_the_reference(golden, reference):
    made = method(golden)
    for step in ("step1", "step2"):
        reference(made, step)
    terms, (gradient, *_) = reference(made, "step3", "masked_u")
    assert_close(torch.stack(list(terms.values())).sum(), golden["masked_loss"], 1e-9)
    assert_close(gradient, golden["masked_grad_x"], 1e-9)
    assert gradient[6].abs().sum() == 0  # it has no teacher


def test_among_equal_losses_the_first_teacher_stays(golden):
    losses = golden["tie_losses"][:, None]
    keep = choose_teachers(losses, torch.ones(3, 1, dtype=torch.bool), torch.zeros(3, 1), 0.5)
    assert torch.equal(keep[:, 0], golden["tie_keep_u0"])


def test_the_momentum_follows_the_published_schedule(golden):
    assert_close(momentum(torch.arange(20).double() / 20), golden["schedule_momentum"], 1e-9)
    assert momentum(torch.tensor(3.0)).item() == pytest.approx(0.001)


def test_one_row_leaves_the_statistics_and_a_constant_dimension_becomes_zero(golden):
    head = UNICHead(4, 3, 3).double()
    head.update(golden["constant_in"], torch.tensor([True, False, False, False]), torch.tensor(1.0))
    assert head.mean.tolist() == [0, 0, 0]
    assert head.std.tolist() == [1, 1, 1]
    head.update(golden["constant_in"], torch.ones(4, dtype=torch.bool), torch.tensor(1.0))
    assert_close(head.standardize(golden["constant_in"] + 0.001), golden["constant_out"], 1e-12)


def test_evaluation_drops_nobody_and_changes_nothing():
    example = Example(absent=())
    made = build("unic", example)
    before = {name: value.clone() for name, value in made.named_buffers()}
    draws = made.random.get_extra_state()
    terms, _ = run(made.eval(), example)
    expected, _ = run(build("unic", example, drop=0), example)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}
    )
    assert all(torch.equal(value, before[name]) for name, value in made.named_buffers())
    assert made.random.get_extra_state() == draws


def test_targets_may_stay_as_they_are():
    example = Example(dims=(6,), absent=())
    made = build("unic", example, standardize="none")
    for _ in range(2):
        terms, _ = run(made, example)
    prediction = made.heads[0](example.feature)
    loss = (cosine_distance(prediction, example.teachers[0]) + smooth_l1(prediction, example.teachers[0])) / 2
    assert terms["unic/t0"].item() == pytest.approx(loss.mean().item(), rel=1e-12)
    assert made.heads[0].mean.abs().sum() == 0
