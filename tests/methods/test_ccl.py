from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.batch import Batch
from ccl_cli.errors import RecipeError
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.methods.ccl import CCL, CCLOptions
from ccl_cli.methods.components.composition import CompositionHead
from ccl_cli.methods.components.losses import cross_entropy
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.training.distiller import Distiller
from tests.helpers.golden import assert_close, load
from tests.methods.distilling import Fixed

TEACHERS = {"a": TeacherInfo("audio:a", "audio", 6), "i": TeacherInfo("image:i", "image", 6)}
SETUPS = {"A": "a", "I": "i", "AI": "ai"}


class Step:
    """The numbers of the stored official step: student embedding, classifier, heads, teachers."""

    def __init__(self, golden, setup, **options):
        self.teachers = [TEACHERS[letter] for letter in SETUPS[setup]]
        self.letters = SETUPS[setup]
        self.method = CCL(
            CCLOptions(**options), Setting(6, 4, torch.zeros(8, dtype=torch.long), tuple(self.teachers))
        ).double()
        self.feature = nn.Parameter(golden["param_x_v"].clone())
        self.classifier = nn.Linear(6, 4).double()
        self.labels = golden["labels"]
        with torch.no_grad():
            self.classifier.weight.copy_(golden["param_cls.weight"])
            self.classifier.bias.copy_(golden["param_cls.bias"])
            for letter, head in zip(self.letters, self.method.heads, strict=True):
                for ours, theirs in (("residual", "mlp"), ("classifier", "fc")):
                    for part in ("weight", "bias"):
                        value = golden[f"param_head_{letter}.{theirs}.{part}"]
                        getattr(getattr(head, ours), part).copy_(value)
        self.embeddings = {}
        for letter, info in zip(self.letters, self.teachers, strict=True):
            value = golden[f"x_{letter}"]
            self.embeddings[info.name] = Embedding(value, value.abs().sum(1) > 0)

    def loss(self):
        student = StudentOutput(self.feature, self.classifier(self.feature))
        batch = Batch(torch.empty(0), self.labels, torch.arange(8), {}, 0)
        terms = self.method(student, self.embeddings, batch)
        return cross_entropy(student.logits, self.labels).mean() + sum(terms.values())

    def named_gradients(self):
        yield "x_v", self.feature.grad
        for part in ("weight", "bias"):
            yield f"cls.{part}", getattr(self.classifier, part).grad
        for letter, head in zip(self.letters, self.method.heads, strict=True):
            for ours, theirs in (("residual", "mlp"), ("classifier", "fc")):
                for part in ("weight", "bias"):
                    yield f"head_{letter}.{theirs}.{part}", getattr(getattr(head, ours), part).grad


@pytest.mark.parametrize("setup", ["A", "I", "AI"])
def test_official_preset_reproduces_one_official_step(shared, setup):
    golden = load(shared, "ccl_step")
    step = Step(golden, setup, preset="official")
    step.loss().backward()
    compared = 0
    for name, gradient in step.named_gradients():
        # 1e-5: the official loss guards its logarithms with 1e-10, ours is exact.
        assert_close(gradient, golden[f"{setup}_step_{name}"], 1e-5)
        compared += 1
    assert compared == 3 + 4 * len(step.letters)


@pytest.mark.parametrize("route", ["joint", "split"])
@pytest.mark.parametrize("setup", ["A", "I", "AI"])
def test_equation_8_value_and_gradients(shared, setup, route):
    golden, exact = load(shared, "ccl_step"), load(shared, "ccl_exact")
    step = Step(golden, setup, gradient=route)
    loss = step.loss()
    loss.backward()
    assert_close(loss.detach(), exact[f"eq8_{setup}_loss"], 1e-10)
    for name, gradient in step.named_gradients():
        assert_close(gradient, exact[f"eq8_{route}_{setup}_grad_{name}"], 1e-10)


@pytest.mark.parametrize("kind", ["norm", "raw"])
def test_composition_head_equals_the_reference(shared, kind):
    golden = {
        key.removeprefix(f"{kind}_"): value
        for key, value in load(shared, "ccl_composition").items()
        if key.startswith(kind)
    }
    head = CompositionHead(8, 8, 5, normalize_inputs=kind == "norm").double()
    head.residual.weight.data = golden["param_mlp.weight"]
    head.residual.bias.data = golden["param_mlp.bias"]
    head.classifier.weight.data = golden["param_fc.weight"]
    head.classifier.bias.data = golden["param_fc.bias"]
    teacher, video = golden["x_teacher"].requires_grad_(), golden["x_video"].requires_grad_()
    feature, logits = head(teacher, video)
    assert_close(feature.detach(), golden["feature"], 1e-10)
    assert_close(logits.detach(), golden["logits"], 1e-10)
    ((logits * golden["cot_logits"]).sum() + (feature * golden["cot_feature"]).sum()).backward()
    assert_close(teacher.grad, golden["g_teacher"], 1e-10)
    assert_close(video.grad, golden["g_video"], 1e-10)
    assert_close(head.residual.weight.grad, golden["grad_mlp.weight"], 1e-10)
    assert_close(head.classifier.bias.grad, golden["grad_fc.bias"], 1e-10)


def example(rows=7, dims=(5, 9), absent=(2,), dtype=torch.float64, classes=3, scale=1.0, **options):
    """A method on random numbers; row ``absent`` of the first teacher is missing."""
    torch.manual_seed(0)
    infos = tuple(TeacherInfo(f"m{k}:t", f"m{k}", dim) for k, dim in enumerate(dims))
    method = CCL(CCLOptions(**options), Setting(6, classes, torch.zeros(rows, dtype=torch.long), infos)).to(
        torch.float64 if dtype == torch.float64 else torch.float32
    )
    feature = (scale * torch.rand(rows, 6, dtype=torch.float64)).to(dtype).requires_grad_()
    logits = torch.randn(rows, classes, dtype=torch.float64).to(dtype).requires_grad_()
    embeddings = {}
    for k, info in enumerate(infos):
        present = torch.ones(rows, dtype=torch.bool)
        present[list(absent if k == 0 else ())] = False
        value = torch.rand(rows, info.dim, dtype=torch.float64).to(dtype) * present[:, None]
        embeddings[info.name] = Embedding(value, present)
    labels = torch.randint(0, classes, (rows,))
    batch = Batch(torch.empty(0), labels, torch.arange(rows), {}, 0)
    return method, StudentOutput(feature, logits), embeddings, batch


def test_rows_without_a_modality_get_exactly_zero_gradient_from_its_terms():
    method, student, embeddings, batch = example(absent=(2, 5))
    terms = method(student, embeddings, batch)
    first = sum(value for name, value in terms.items() if name.endswith("m0:t"))
    grad = torch.autograd.grad(first, student.feature, retain_graph=True)[0]
    assert grad[[2, 5]].abs().max() == 0
    assert grad[[0, 1, 3, 4, 6]].abs().min(dim=1).values.max() > 0


def test_without_residual_every_lambda_is_the_contrast_with_the_teacher():
    values = []
    for share in (0.0, 0.5, 1.0):
        method, student, embeddings, batch = example(dims=(6,), nce_lambda=share)
        nn.init.zeros_(method.heads[0].residual.weight)
        nn.init.zeros_(method.heads[0].residual.bias)
        values.append(method(student, embeddings, batch)["nce/m0:t"].item())
    assert values == pytest.approx([values[0]] * 3, rel=1e-12)


ABLATIONS = {
    "no composition": dict(composition=False),
    "infonce": dict(contrast="infonce"),
    "no nce": dict(nce=False),
    "no jsd": dict(jsd=False),
    "js": dict(divergence="js"),
    "symmetric": dict(symmetric="mean"),
    "official": dict(preset="official"),
    "official, no nce": dict(preset="official", nce=False),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_hold_the_terms_they_say(name):
    method, student, embeddings, batch = example(**ABLATIONS[name])
    terms = {term.split("/")[0] for term in method(student, embeddings, batch)}
    expected = {
        "no composition": {"nce"},
        "no nce": {"ce", "jsd"},
        "no jsd": {"ce", "nce"},
        "official": {"ce", "nce", "jsd", "nce_head", "jsd_head", "nce_teacher"},
        "official, no nce": {"ce", "jsd", "jsd_head"},
    }
    assert terms == expected.get(name, {"ce", "nce", "jsd"})


def test_the_contrast_cannot_be_dropped_where_it_is_all_there_is():
    with pytest.raises(ValidationError, match="cannot both be off"):
        CCLOptions(composition=False, nce=False)


@pytest.mark.parametrize("weight", [1.0, 0.0, 0.3])
def test_cls_weight_is_equation_8s_and_weighs_the_students_cross_entropy_too(weight):
    parts = {}
    for cls_weight in (1.0, weight):
        method, student, embeddings, batch = example(dtype=torch.float32, cls_weight=cls_weight)
        batch = batch._replace(video=torch.zeros(7, 3, 1, 2, 2, dtype=torch.uint8))
        parts[cls_weight] = Distiller(Fixed(student), {"ccl": method}, Clip())(batch, embeddings).parts
    assert set(parts[1.0]) == {f"{term}/m{k}:t" for term in ("ce", "nce", "jsd") for k in (0, 1)} | {"ce"}
    for name, value in parts[1.0].items():
        factor = weight if name.startswith("ce") else 1.0
        assert parts[weight][name].item() == pytest.approx(factor * value.item(), rel=1e-6)


def test_infonce_is_the_multiclass_contrast_of_distinct_labels_without_its_second_half():
    one, student, embeddings, batch = example(contrast="infonce", absent=())
    batch = batch._replace(labels=torch.zeros(7, dtype=torch.long))
    value = one(student, embeddings, batch)["nce/m0:t"]
    scores = (
        torch.nn.functional.normalize(student.feature)
        @ torch.nn.functional.normalize(one.heads[0].project(embeddings["m0:t"].value)).mT
    )
    expected = torch.nn.functional.cross_entropy(scores / 0.1, torch.arange(7))
    composed = one.heads[0](one.heads[0].project(embeddings["m0:t"].value), student.feature).feature
    scores = torch.nn.functional.normalize(student.feature) @ torch.nn.functional.normalize(composed).mT
    expected = (expected + torch.nn.functional.cross_entropy(scores / 0.1, torch.arange(7))) / 2
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "case",
    [
        dict(rows=1, absent=()),
        dict(rows=1, absent=(0,)),
        dict(rows=2, absent=()),
        dict(rows=5, absent=range(5)),
        dict(rows=5, classes=1, absent=()),
        dict(rows=5, absent=(0, 1, 2, 3)),
        dict(scale=0.0),
    ],
    ids=["B=1", "B=1 absent", "B=2", "nobody", "one class", "one present", "zero features"],
)
@pytest.mark.parametrize(
    "options", [{}, dict(preset="official"), dict(contrast="infonce"), dict(divergence="js")]
)
def test_degenerate_batches_are_finite(case, dtype, options):
    method, student, embeddings, batch = example(dtype=dtype, **case, **options)
    loss = sum(method(student, embeddings, batch).values())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.feature.grad).all()
    for parameter in method.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_temperature_by_modality_and_by_teacher():
    method, *_ = example(temperature={"m0": 0.3, "m1:t": 0.2})
    infos = (TeacherInfo("m0:t", "m0", 5), TeacherInfo("m1:t", "m1", 5), TeacherInfo("x:t", "audio", 5))
    assert [method._temperature(info) for info in infos] == [
        0.3,
        0.2,
        0.5,
    ]  # the last is the default of sound
    with pytest.raises(RecipeError, match="no teacher or modality 'adio'"):
        example(temperature={"adio": 0.5})
