from __future__ import annotations

import math

import pytest
import torch

from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.methods.ifd import IFD, IFDOptions, ifd, pool_stage
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.training.train import train
from tests.helpers.golden import TAGS, assert_close, assert_reference, load, pair
from tests.methods.distilling import Example, build, everyone, rows, run
from tests.training.runs import lines, recipe

KERNELS = {
    "combined": {},
    "cosine_jeffreys": dict(kernel="cosine"),
    "student_t_jeffreys": dict(kernel="student_t"),
    "student_t2_jeffreys": dict(kernel="student_t", degree=2),
}


def value(student, teacher, **options):
    """The published mean over all pairs."""
    return ifd(rows(student), rows(teacher), everyone(student), **options).mean() / len(student)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("tag", TAGS)
def test_equals_the_reference(shared, tag, name):
    golden = load(shared, "ifd")
    student, teacher = pair(golden, tag)
    assert_reference(value(student, teacher, **KERNELS[name]), student, golden, f"ifd_{name}_{tag}")


def flow(feature, inner, teacher, shown, epoch, *, present=None, epochs=50, **options):
    """The method on a student with one inner stage, beside its last."""
    setting = Setting(
        feature.shape[1],
        2,
        torch.zeros(8, dtype=torch.long),
        (TeacherInfo("image:t", "image", teacher.shape[1]),),
        epochs,
    )
    method = IFD(IFDOptions(**options), setting)
    student = StudentOutput(feature, feature[:, :2], (inner, feature[:, :, None, None, None]))
    present = everyone(feature) if present is None else present
    batch = Batch(
        torch.empty(0), torch.zeros(len(feature), dtype=torch.long), torch.arange(len(feature)), {}, epoch
    )
    return method, method(student, {"image:t": Embedding(teacher, present, shown)}, batch)


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_flow_of_two_layers_equals_the_reference(shared, epoch):
    golden = load(shared, "ifd")
    feature, inner = golden["f_s_relu"].requires_grad_(), golden["f_s_mid"].requires_grad_()
    stages = golden["f_t_mid"], golden["f_t_relu"]
    # A stage's cells average to the stored vector.
    spread = inner[:, :, None, None, None] + torch.tensor([-1.0, 1.0])[None, None, :, None, None]
    method, terms = flow(feature, spread, golden["f_t_relu"], stages, epoch, stages="auto")
    assert method.uses_stages
    assert set(terms) == {"ifd/image:t", "stage1/image:t"}
    assert_reference(sum(terms.values()), feature, golden, f"ifd_flow_epoch{epoch}")
    assert_close(inner.grad, golden[f"ifd_flow_epoch{epoch}_grad_mid"], 1e-9)


def test_closed_forms():
    student, teacher = torch.eye(2).double(), torch.ones(2, 3).double()
    assert value(student, teacher, kernel="cosine").item() == pytest.approx(math.log(2) / 12, abs=1e-6)
    assert value(student, teacher, kernel="student_t").item() == pytest.approx(0.091075, abs=1e-6)


def test_opposite_rows_diverge_by_a_finite_amount():
    student, teacher = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True), torch.ones(2, 2)
    loss = value(student, teacher)
    loss.backward()
    assert torch.isfinite(student.grad).all()
    # The teacher's rows coincide, p = 1/2; the student's cosine counts as 1e-6 in place of 0.
    q = 1 / (1 + 1e-6)
    cosine = (0.5 - q) * (math.log(0.5) - math.log(q)) + (q - 0.5) * (math.log(0.5) - math.log(1 - q))
    near, far = 1 / 1.001, 1 / (1 + math.sqrt(4 + 1e-6))
    q = near / (near + far)
    distance = (0.5 - q) * (math.log(0.5) - math.log(q)) + (q - 0.5) * (math.log(0.5) - math.log(1 - q))
    assert loss.item() == pytest.approx((cosine + distance) / 2, rel=1e-3)


def test_a_teacher_without_stages_gives_its_embedding_to_every_stage_if_asked():
    feature, inner, teacher = torch.rand(8, 4), torch.rand(8, 3, 2, 2, 2), torch.rand(8, 5)
    _, terms = flow(feature, inner, teacher, (), 0, stages="broadcast_last")
    expected = 100 * value(inner.mean(dim=(2, 3, 4)), teacher)
    assert terms["stage1/image:t"].item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(RecipeError, match=r"no teacher has as many stages as the student \(2\)"):
        flow(feature, inner, teacher, (), 0, stages="auto")
    method, terms = flow(feature, inner, teacher, (), 0)
    assert not method.uses_stages
    assert set(terms) == {"ifd/image:t"}


def test_absent_rows_do_not_enter_the_stages():
    feature, inner, teacher = torch.rand(8, 4), torch.rand(8, 3, 2, 2, 2), torch.rand(8, 5)
    stage = torch.rand(8, 6, 7, 7)
    present = torch.tensor([1, 1, 0, 1, 1, 0, 1, 1]).bool()
    inner.requires_grad_()
    _, terms = flow(feature, inner, teacher, (stage, stage), 0, present=present, stages="auto")
    expected = 100 * value(inner.mean(dim=(2, 3, 4))[present], stage.mean(dim=(2, 3))[present])
    assert terms["stage1/image:t"].item() == pytest.approx(expected.item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(terms["stage1/image:t"], inner)
    assert gradient[~present].abs().max() == 0
    assert gradient[present].abs().max() > 0


def test_the_stages_weight_decays_as_published_or_over_the_run():
    def weights(epochs, **options):
        method = IFD(IFDOptions(stages="auto", **options), Setting(2, 2, torch.zeros(1), (), epochs))
        return [method.stage_weight(epoch) for epoch in (0, 13, epochs - 1)]

    assert weights(50)[:2] == [100, pytest.approx(0.97, abs=1e-2)]
    assert weights(300)[1] == weights(50)[1]
    assert weights(300, stretch=True)[2] == pytest.approx(100 * 0.7 ** (299 * 50 / 300))
    assert weights(50, stretch=True) == weights(50)
    assert weights(50, alpha=2, decay=1) == [2, 2, 2]


@pytest.mark.parametrize(
    ("shape", "width"), [((4, 3, 5, 6, 6), 24), ((4, 3, 6, 6), 12), ((4, 3, 5), 6), ((4, 3), 3)]
)
def test_stages_of_any_shape_are_pooled_to_the_same_cells(shape, width):
    stage = torch.rand(shape)
    assert pool_stage(stage, (2, 2, 2)).shape == (4, width)
    assert_close(pool_stage(stage, (1, 1, 1)), stage.flatten(2).mean(2) if stage.dim() > 2 else stage, 1e-6)


def test_reductions_differ_by_the_number_of_rows_present():
    example = Example(7, (6,), ((2, 5),))
    mean, _ = run(build("ifd", example), example)
    batchmean, _ = run(build("ifd batchmean", example), example)
    assert batchmean["ifd/t0"].item() == pytest.approx(5 * mean["ifd/t0"].item(), rel=1e-12)


def test_a_real_image_network_shows_stages_that_a_real_student_follows(clips_folder):
    teachers, method = ["image:resnet18?weights=random&size=32"], {"ifd": {"stages": "auto"}}
    first, *_ = lines(train(recipe(clips_folder, teachers=teachers, method=method, train={"max_steps": 1})))
    for number in (1, 2, 3):
        assert first[f"stage{number}/image:resnet18"] > 0
    assert "stage4/image:resnet18" not in first
