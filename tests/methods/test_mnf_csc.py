from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.methods.components.losses import unit_rows
from ccl_cli.methods.mnf_csc import MNFCSC, MNFCSCOptions, calibrated_contrastive_loss, temperatures
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from tests.helpers.golden import assert_close, load
from tests.methods.distilling import Example, build, run

# The reference adds 1e-10 inside its logarithm, ours is exact: with temperatures that adapt, 5e-9.
GUARD = 1e-7
LAYERS = {
    "gated_feature_composer.0": "squeeze",
    "gated_feature_composer.1": "squeeze_norm",
    "gated_feature_composer.3": "excite",
    "attn": "attention",
    "attn.out_proj": "attention.out_proj",
    "trans_sv.0": "transform",
    "trans_sv.1": "transform_norm",
    "sv_cls_classifier": "classifier",
}
EVERYONE = torch.ones(8, dtype=torch.bool)


@pytest.fixture
def golden(shared):
    return load(shared, "mnf_csc")


class Step:
    """The reference's numbers: tokens that are free, a classifier, one teacher's filter."""

    def __init__(self, golden):
        self.golden, self.labels = golden, golden["labels"]
        setting = Setting(6, 4, self.labels, (TeacherInfo("audio:a", "audio", 6),))
        self.method = MNFCSC(MNFCSCOptions(), setting).double()
        self.map, self.classifier = nn.Parameter(golden["param_video.map"].clone()), nn.Linear(6, 4).double()
        with torch.no_grad():
            self.classifier.weight.copy_(golden["param_video.cls.weight"])
            self.classifier.bias.copy_(golden["param_video.cls.bias"])
            for name, parameter in self.named_layers():
                parameter.copy_(golden[f"param_{name}"])

    def named_layers(self):
        """The filter's parameters by the reference's names."""
        (layers,) = self.method.heads
        by_layer = {ours: theirs for theirs, ours in LAYERS.items()}
        for name, parameter in layers.named_parameters():
            layer, _, part = name.rpartition(".")
            part = {"scale": "weight", "shift": "bias"}.get(part, part)
            yield f"mnf.{by_layer[layer]}.{part}", parameter

    def named_parameters(self):
        yield "video.map", self.map
        yield "video.cls.weight", self.classifier.weight
        yield "video.cls.bias", self.classifier.bias
        yield from self.named_layers()

    def terms(self, audio, present=EVERYONE):
        feature = self.map.mean(dim=1)
        student = StudentOutput(feature, self.classifier(feature), (self.map.mT[:, :, :, None, None],))
        batch = Batch(torch.empty(0), self.labels, torch.arange(8), {}, 0)
        terms = self.method(student, {"audio:a": Embedding(audio, present)}, batch)
        return {"cls_v": F.cross_entropy(student.logits, self.labels)} | {
            name.removesuffix("/audio:a"): value for name, value in terms.items()
        }


NAMES = {"csc": "csc", "cls_v": "cls_v", "cls_n": "filter_ce", "norm": "norm", "triplet": "triplet"}


def assert_gradient(actual, expected):
    if expected.abs().max() < 1e-12:  # of a bias before batch normalisation
        assert actual.abs().max() < 1e-12
    else:
        assert_close(actual, expected, GUARD)


def test_terms_and_gradients_of_one_step_equal_the_reference(golden):
    step = Step(golden)
    terms = step.terms(golden["step1_audio"])
    for theirs, ours in NAMES.items():
        assert_close(terms[ours].detach(), golden[f"term_{theirs}_loss"], GUARD if ours == "csc" else 1e-9)
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in step.named_parameters():
        assert_gradient(parameter.grad, golden[f"loop1_step_{name}"])


def test_absent_rows_equal_the_reference(golden):
    step, present = Step(golden), golden["masked_present"]
    terms = step.terms(torch.where(present[:, None], golden["step1_audio"], 0.0), present)
    for theirs, ours in NAMES.items():
        assert_close(terms[ours].detach(), golden[f"masked_{theirs}_loss"], GUARD if ours == "csc" else 1e-9)
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in step.named_parameters():
        assert_gradient(parameter.grad, golden[f"masked_grad_{name}"])


def contrast(golden, temperature, labels, case):
    student, video = (golden[name].clone().requires_grad_() for name in ("csc_video", "csc_selected"))
    loss = calibrated_contrastive_loss(
        student, video, temperature, labels[:, None] == labels, EVERYONE
    ).mean()
    loss.backward()
    assert_close(loss.detach(), golden[f"{case}_loss"], 1e-9)
    assert_close(student.grad, golden[f"{case}_grad_video"], 1e-9)
    if f"{case}_grad_selected" in golden:
        assert_close(video.grad, golden[f"{case}_grad_selected"], 1e-9)


@pytest.mark.parametrize("batch", ["mixed", "single"])
@pytest.mark.parametrize("kind", ["fixed0.07", "adaptive0.07"])
def test_the_contrast_without_the_guard_equals_the_reference(golden, kind, batch):
    cosine = golden["csc_cos_positive"] if kind.startswith("adaptive") else torch.zeros(8, 8).double()
    labels = golden["labels"] if batch == "mixed" else torch.zeros(8)
    contrast(golden, cosine + 0.07, labels, f"csc_noeps_{kind}_{batch}")


def test_a_negative_cosine_counts_as_zero():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert temperatures(one, other, 0.07).tolist() == [pytest.approx([0.07, 0.07, 1.07])]


def test_the_filters_own_losses_do_not_reach_the_student(golden):
    step = Step(golden)
    terms = step.terms(golden["step1_audio"])
    for name in ("filter_ce", "triplet", "norm"):
        (gradient,) = torch.autograd.grad(terms[name], step.map, allow_unused=True, retain_graph=True)
        assert gradient is None or gradient.abs().sum() == 0
    (gradient,) = torch.autograd.grad(terms["csc"], step.method.heads[0].squeeze.weight)
    assert gradient.abs().sum() > 0


def test_fixed_temperatures_are_the_threshold(golden):
    step = Step(golden)
    step.method.options = MNFCSCOptions(adaptive=False, threshold=0.5)
    feature, audio = step.map.mean(dim=1), golden["step1_audio"]
    video = step.method.heads[0](feature, step.map, audio, EVERYONE).video
    log_p = (unit_rows(feature) @ unit_rows(video).mT / 0.5).log_softmax(dim=1)
    positive = step.labels[:, None] == step.labels
    expected = -(torch.where(positive, log_p, 0.0).sum(dim=1) / positive.sum(dim=1)).mean()
    assert step.terms(audio)["csc"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_one_row_of_a_teacher_is_none():
    example = Example(absent=((0, 1, 2, 3, 4, 5),), dims=(9,))
    terms, gradients = run(build("mnf_csc", example), example)
    assert all(value == 0 for value in terms.values())
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


@pytest.mark.parametrize("stages", [(), (torch.zeros(7, 5, 1, 2, 2),)])
def test_a_student_without_a_stage_as_wide_as_its_feature_is_refused(stages):
    example = Example()
    method = build("mnf_csc", example)
    student = StudentOutput(example.feature, example.logits, stages)
    embeddings = {f"t{k}": Embedding(value, value[:, 0] > -1) for k, value in enumerate(example.teachers)}
    with pytest.raises(RecipeError, match=r"needs .*last stage.*, but"):
        method(student, embeddings, Batch(torch.empty(0), example.labels, torch.arange(7), {}, 0))


def test_the_heads_of_the_attention_divide_the_students_width():
    with pytest.raises(RecipeError, match="4 does not divide the student's width, 6"):
        build("mnf_csc", Example(), heads=4)
