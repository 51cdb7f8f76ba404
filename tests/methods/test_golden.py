"""Values and gradients of every method equal those that the published codes gave."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ccl_cli.methods import Setting, TeacherInfo, unic
from ccl_cli.methods.ccl import CompositionHead
from ccl_cli.methods.cmc import CMCOptions
from ccl_cli.methods.components.contrast import ContrastiveLoss, ContrastSamples, NegativeSampler, View
from ccl_cli.methods.components.losses import cross_entropy, unit_rows
from ccl_cli.methods.components.memory_bank import MemoryBank
from ccl_cli.methods.crd import CRDOptions, CRDPair
from ccl_cli.methods.mnf_csc import MNFCSCOptions
from ccl_cli.methods.queue_kl import QueueHead
from ccl_cli.students import StudentOutput
from tests.helpers.golden import TAGS, assert_close, assert_reference, load, pair
from tests.methods.distilling import Example, build, run

EVERYONE = torch.ones(8, dtype=torch.bool)


@pytest.fixture
def golden(shared, request):
    """The stored numbers of the file that a test names."""
    return load(shared, request.param)


def of(name):
    return pytest.mark.parametrize("golden", [name], indirect=True)


def batch(feature, teachers, labels=None):
    """An example of stored numbers; a row of zeros lacks the teacher."""
    example = Example(len(feature), [value.shape[1] for value in teachers], (), feature.shape[1])
    example.feature, example.teachers = feature, teachers
    example.labels = example.labels if labels is None else labels
    return example


def copy(module, golden, prefix, names=None):
    """Give a module the stored parameters; ``names`` renames the module's to the stored ones."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            layer, _, part = name.rpartition(".")
            parameter.copy_(golden[f"{prefix}{(names or {}).get(layer, layer)}.{part}"])


# ---- methods without state: file, method, options, name of the stored loss, factor of the published weight

KERNELS = {
    "combined": {},
    "cosine_jeffreys": dict(kernel="cosine"),
    "student_t_jeffreys": dict(kernel="student_t"),
    "student_t2_jeffreys": dict(kernel="student_t", degree=2),
}
REFERENCES = [
    ("distillers", "fitnet", {}, "fitnet_same", 100),
    ("distillers", "cckd neighbour", {}, "cc_repdistiller_same", 0.02),
    *(
        reference
        for tag in TAGS
        for reference in (
            ("distillers", "pkt", {}, f"pkt_{tag}", 30000),
            ("distillers", "pkt", {}, f"pkt_author_{tag}", 30000),
            ("distillers", "pkt batchmean", {}, f"pkt_{tag}", 468.75 * 8),
            ("distillers", "cckd", {}, f"cckd_zoo_g0.4_P2_{tag}", 100),
            ("distillers", "rkd", {}, f"rkd_total_{tag}", 1),
            ("distillers", "rkd", dict(angle=0), f"rkd_dist_{tag}", 25),
            ("distillers", "rkd", dict(angle=0), f"rkd_author_dist_{tag}", 25),
            ("distillers", "rkd", dict(distance=0), f"rkd_angle_{tag}", 50),
            ("distillers", "rkd", dict(distance=0), f"rkd_author_angle_{tag}", 50),
            *(("ifd", "ifd", options, f"ifd_{name}_{tag}", 1) for name, options in KERNELS.items()),
            ("ifd", "ifd batchmean", {}, f"ifd_combined_{tag}", 8),
        )
    ),
]


@pytest.mark.parametrize(
    ("file", "variant", "options", "name", "factor"),
    REFERENCES,
    ids=[f"{variant}-{name}" for _, variant, _, name, _ in REFERENCES],
)
def test_one_teacher(shared, file, variant, options, name, factor):
    golden = load(shared, file)
    student, teacher = pair(golden, name.rpartition("_")[2])
    example = batch(student.detach(), [teacher])
    terms, (gradient, *_) = run(build(variant, example, **options), example)
    assert_close(sum(terms.values()), factor * golden[f"{name}_loss"], 1e-9)
    assert_close(gradient, factor * golden[f"{name}_grad"], 1e-9)


@of("distillers")
@pytest.mark.parametrize("tag", TAGS)
def test_cckd_bilinear_equals_the_reference_but_for_its_square(golden, tag):
    """The reference divides the norm, not its square, by the number of pairs."""
    student, teacher = pair(golden, tag)
    example = batch(student, [teacher])
    terms = build("cckd bilinear", example, weight=1)(example.student(), example.embeddings(), example.batch)
    loss = terms["cckd/t0"].sqrt() / len(student)
    assert_reference(loss, student, golden, f"cckd_torchdistill_bilinear_{tag}")


@of("distillers")
@pytest.mark.parametrize("temperature", [1, 4])
def test_kd(golden, temperature):
    example = batch(torch.zeros(len(golden["kd_logits_t"]), 6).double(), [golden["kd_logits_t"]])
    example.logits = golden["kd_logits_s"]
    method = build("kd", example, temperature=temperature, probe_weight=0)
    method.heads[0] = nn.Identity()
    terms, (_, gradient, _) = run(method, example)
    assert_close(terms["kd/t0"], 0.9 * golden[f"kd_T{temperature}_loss"], 1e-9)
    assert_close(gradient, 0.9 * golden[f"kd_T{temperature}_grad"], 1e-9)


@of("ifd")
@pytest.mark.parametrize("epoch", [0, 3])
def test_ifd_of_two_layers(golden, epoch):
    example = batch(golden["f_s_relu"], [golden["f_t_relu"]])
    example.stages = golden["f_t_mid"], golden["f_t_relu"]
    inner = golden["f_s_mid"].requires_grad_()
    # A stage's cells average to the stored vector.
    example.stage = inner[:, :, None, None, None] + torch.tensor([-1.0, 1.0])[None, None, :, None, None]
    method = build("ifd", example, stages="auto")
    feature = example.feature.requires_grad_()
    terms = method(example.student(), example.embeddings(), example.batch._replace(epoch=epoch))
    assert set(terms) == {"ifd/t0", "stage1/t0"}
    assert_reference(sum(terms.values()), feature, golden, f"ifd_flow_epoch{epoch}")
    assert_close(inner.grad, golden[f"ifd_flow_epoch{epoch}_grad_mid"], 1e-9)


# ---- ccl

HEAD = {"residual": "mlp", "classifier": "fc"}


class OfficialStep:
    """The stored step: student embedding, classifier, heads and teachers."""

    def __init__(self, golden, setup, **options):
        self.letters = setup.lower()
        self.example = batch(
            golden["param_x_v"], [golden[f"x_{each}"] for each in self.letters], golden["labels"]
        )
        self.example.present = torch.stack([value.abs().sum(1) > 0 for value in self.example.teachers])
        temperature = {f"t{k}": {"a": 0.5, "i": 0.1}[letter] for k, letter in enumerate(self.letters)}
        self.method = build("ccl", self.example, temperature=temperature, **options)
        self.classifier = nn.Linear(6, 4).double()
        copy(nn.ModuleDict({"cls": self.classifier}), golden, "param_")
        for letter, head in zip(self.letters, self.method.heads, strict=True):
            copy(head, golden, f"param_head_{letter}.", HEAD)
        self.feature = nn.Parameter(golden["param_x_v"].clone())

    def backward(self):
        student = StudentOutput(self.feature, self.classifier(self.feature))
        terms = self.method(student, self.example.embeddings(), self.example.batch)
        loss = cross_entropy(student.logits, self.example.labels).mean() + sum(terms.values())
        loss.backward()
        return loss.detach()

    def gradients(self):
        yield "x_v", self.feature.grad
        modules = {"cls": self.classifier}
        for letter, head in zip(self.letters, self.method.heads, strict=True):
            modules |= {f"head_{letter}.{theirs}": getattr(head, ours) for ours, theirs in HEAD.items()}
        for name, module in modules.items():
            yield from ((f"{name}.{part}", parameter.grad) for part, parameter in module.named_parameters())


@of("ccl_step")
@pytest.mark.parametrize("setup", ["A", "I", "AI"])
def test_ccl_official_preset_takes_one_official_step(golden, setup):
    step = OfficialStep(golden, setup, preset="official")
    step.backward()
    for name, gradient in step.gradients():
        # 1e-5: the official loss guards its logarithms with 1e-10, ours is exact.
        assert_close(gradient, golden[f"{setup}_step_{name}"], 1e-5)


@of("ccl_step")
@pytest.mark.parametrize("route", ["joint", "split"])
@pytest.mark.parametrize("setup", ["A", "I", "AI"])
def test_ccl_equation_8(golden, shared, setup, route):
    exact, step = load(shared, "ccl_exact"), OfficialStep(golden, setup, gradient=route)
    assert_close(step.backward(), exact[f"eq8_{setup}_loss"], 1e-10)
    for name, gradient in step.gradients():
        assert_close(gradient, exact[f"eq8_{route}_{setup}_grad_{name}"], 1e-10)


@of("ccl_composition")
@pytest.mark.parametrize("kind", ["norm", "raw"])
def test_ccl_composition(golden, kind):
    head = CompositionHead(8, 8, 5, kind == "norm").double()
    copy(head, golden, f"{kind}_param_", HEAD)
    stored = {key.removeprefix(f"{kind}_"): value for key, value in golden.items() if key.startswith(kind)}
    teacher, video = stored["x_teacher"].requires_grad_(), stored["x_video"].requires_grad_()
    feature, logits = head(teacher, video)
    assert_close(feature.detach(), stored["feature"], 1e-10)
    assert_close(logits.detach(), stored["logits"], 1e-10)
    ((logits * stored["cot_logits"]).sum() + (feature * stored["cot_feature"]).sum()).backward()
    assert_close(teacher.grad, stored["g_teacher"], 1e-10)
    assert_close(video.grad, stored["g_video"], 1e-10)


# ---- memory banks


def fix_samples(loss, index):
    samples = ContrastSamples(index, torch.ones_like(index[:, 1:], dtype=torch.bool))
    loss.sampler.draw = lambda rows, absent: samples


@of("crd")
def test_crd_takes_two_steps(golden):
    labels = torch.zeros(int(golden["N"]), dtype=torch.long)
    setting = Setting(8, 4, labels, (TeacherInfo("audio:a", "audio", 7),))
    crd = CRDPair(CRDOptions(dim=6, temperature=0.07), setting, 7).double()
    layers = {"embed_s.linear": crd.project_student, "embed_t.linear": crd.project_teacher}
    for name, layer in layers.items():
        copy(nn.ModuleDict({"layer": layer}), golden, "param_", {"layer": name})
    banks = {"s": crd.student_bank, "t": crd.teacher_bank}
    for side, bank in banks.items():
        bank.entries.copy_(golden[f"mem_{side}_init"])
    for step in ("step1", "step2"):
        crd.zero_grad()
        inputs = {side: nn.Parameter(golden[f"{step}_f_{side}"]) for side in "st"}
        fix_samples(crd.loss, golden[f"{step}_contrast_idx"])
        loss = sum(crd(*inputs.values(), torch.ones(4, dtype=torch.bool), golden[f"{step}_idx"])).mean()
        loss.backward()
        assert_close(loss.detach(), golden[f"{step}_loss"], 1e-9)
        for name, layer in layers.items():
            for part, parameter in layer.named_parameters():
                assert_close(parameter.grad, golden[f"{step}_grad_{name}.{part}"], 1e-9)
        for side, nce in zip("st", crd.loss.nce, strict=True):
            assert_close(inputs[side].grad, golden[f"{step}_grad_f_{side}"], 1e-9)
            assert_close(banks[side].entries, golden[f"{step}_mem_{side}_after"], 1e-9)
            assert_close(nce.log_z.exp(), golden[f"{step}_Z_{side}"], 1e-9)


@of("cmc")
@pytest.mark.parametrize("loss", ["softmax", "nce"])
def test_cmc_takes_two_steps(golden, loss):
    videos, dim = golden["mem_1_init"].shape
    sampler = NegativeSampler(torch.zeros(videos, dtype=torch.long), 4, "other_instance")
    cmc = ContrastiveLoss(CMCOptions(temperature=float(golden["T"])), sampler, loss)
    banks = [MemoryBank(videos, dim, float(golden["momentum"])).double() for _ in range(2)]
    for bank, number in zip(banks, (1, 2), strict=True):
        bank.entries.copy_(golden[f"mem_{number}_init"])
    for step in ("step1", "step2"):
        codes = [nn.Parameter(golden[f"{step}_v{number}"]) for number in (1, 2)]
        present, rows = torch.ones(len(codes[0]), dtype=torch.bool), golden[f"{step}_idx"]
        fix_samples(cmc, golden[f"{step}_contrast_idx"])
        views = [View(code, present, bank) for code, bank in zip(codes, banks, strict=True)]
        values = [value.mean() for value in cmc(*views, rows)]
        sum(values).backward()
        for number, value, (code, _, bank) in zip((1, 2), values, views, strict=True):
            bank.update(rows, code, present)
            assert_close(value.detach(), golden[f"{loss}_{step}_loss_{number}"], 1e-9)
            assert_close(code.grad, golden[f"{loss}_{step}_grad_v{number}"], 1e-9)
            assert_close(bank.entries, golden[f"{loss}_{step}_mem_{number}_after"], 1e-9)
            if loss == "nce":
                assert_close(cmc.nce[number - 1].log_z.exp(), golden[f"nce_{step}_Z_{number}"], 1e-9)


# ---- unic

NAMES = ("a", "b", "c")


class UnicSteps:
    """The method on the reference's parameters, rows, draws and momentum."""

    def __init__(self, golden, monkeypatch, **options):
        self.golden, self.patch = golden, monkeypatch
        self.method = build("unic", Example(8, (6, 5, 7), (), 10), hidden=12, **options)
        for name, head in zip(NAMES, self.method.heads, strict=True):
            copy(head, golden, f"param_{name}.")

    def take(self, number, name, *, masked=False):
        golden, step = self.golden, f"step{number}"
        example = batch(golden[f"{step}_x"], [golden[f"{step}_f_{each}"] for each in NAMES])
        uniform = golden["masked_u" if masked else f"{step}_u"].mT
        self.patch.setattr(unic, "momentum", lambda progress: golden["ema_momentum"][number - 1])
        self.patch.setattr(unic, "uniform_rows", lambda *given: uniform)
        if masked:
            example.present = golden["masked_present"]
        terms, (gradient, *_) = run(self.method, example)
        assert_close(torch.stack(list(terms.values())).sum(), golden[f"{name}_loss"], 1e-9)
        assert_close(gradient, golden[f"{name}_grad_x"], 1e-9)


@of("unic")
def test_unic_takes_two_steps_and_one_with_absent_teachers(golden, monkeypatch):
    steps = UnicSteps(golden, monkeypatch)
    for number in (1, 2):
        steps.take(number, f"step{number}")
        for name, head in zip(NAMES, steps.method.heads, strict=True):
            assert_close(head.mean, golden[f"step{number}_ema_mean_{name}"], 1e-9)
            assert_close(head.std, golden[f"step{number}_ema_std_{name}"], 1e-9)
    before = {name: value.clone() for name, value in steps.method.state_dict().items() if "extra" not in name}
    steps.take(3, "step3")
    steps.method.load_state_dict(before, strict=False)
    steps.take(3, "masked", masked=True)


@of("unic")
@pytest.mark.parametrize(("case", "drop"), [("nodrop", 0), ("onlymax", 1)])
def test_unic_drops_none_or_all_but_one(golden, monkeypatch, case, drop):
    steps = UnicSteps(golden, monkeypatch, drop=drop)
    for number in (1, 2, 3):
        steps.take(number, f"step{number}_{case}")


@of("unic")
def test_unic_ties_momentum_and_constants(golden):
    present = torch.ones(3, 1, dtype=torch.bool)
    keep = unic.choose_teachers(golden["tie_losses"][:, None], present, torch.zeros(3, 1), 0.5)
    assert torch.equal(keep[:, 0], golden["tie_keep_u0"])
    assert_close(unic.momentum(torch.arange(20).double() / 20), golden["schedule_momentum"], 1e-9)
    head = unic.UNICHead(4, 3, 3).double()
    head.update(golden["constant_in"], EVERYONE[:4], torch.tensor(1.0))
    assert_close(head.standardize(golden["constant_in"] + 0.001), golden["constant_out"], 1e-12)


# ---- queue_kl


def queue_head(golden, size=16, temperature=0.07):
    head = QueueHead(10, 8, size, temperature).double()
    copy(nn.ModuleDict({"proj": head.project}), golden, "param_")
    return head


def check_queue(golden, head, given, expected):
    """The queue after a step, and those of its loss and gradients that are stored."""
    present = golden.get(f"{given}_present", EVERYONE[: len(golden[f"{given}_x"])])
    teacher = torch.where(present[:, None], golden[f"{given}_f"], 0.0)
    feature = nn.Parameter(golden[f"{given}_x"])
    values = head(feature, unit_rows(teacher), present, torch.arange(len(present)))
    loss = torch.where(present, values, 0.0).sum() / present.sum()
    head.zero_grad()
    loss.backward()
    assert_close(head.queue, golden[f"{given}_queue"], 1e-9)
    assert_close(loss.detach(), golden[f"{expected}_loss"], 1e-9)
    assert_close(feature.grad, golden[f"{expected}_grad_x"], 1e-9)
    for part, parameter in head.project.named_parameters():
        if f"{expected}_grad_proj.{part}" in golden:
            assert_close(parameter.grad, golden[f"{expected}_grad_proj.{part}"], 1e-9)


@of("queue_kl")
def test_queue_kl_takes_four_steps(golden):
    """The reference counts empty slots, so that its loss is ours only once the queue is full."""
    head = queue_head(golden)
    for number in range(1, 5):
        check_queue(golden, head, f"step{number}", f"step{number}_{'tau0.07' if number > 2 else 'filled'}")
        assert head.filled.tolist() == [slot < 6 * number for slot in range(16)]


@of("queue_kl")
@pytest.mark.parametrize("case", ["step3", "small6", "small4", "single", "masked"])
def test_queue_kl_by_temperature_size_and_presence(golden, case):
    size = int(case[5:]) if case.startswith("small") else 16
    head = queue_head(golden, size, 0.5 if case == "step3" else 0.07)
    before = golden["step2_queue"] if case == "step3" else golden.get(f"{case}_queue_before")
    if before is not None:
        head.queue.copy_(before)
        head.filled[: 12 if case == "step3" else 16] = True
    check_queue(golden, head, case, "step3_tau0.5" if case == "step3" else case)


# ---- mnf_csc

# The reference adds 1e-10 inside its logarithm, ours is exact: with temperatures that adapt, 5e-9.
GUARD = 1e-7
LAYERS = {
    "squeeze": "gated_feature_composer.0",
    "squeeze_norm": "gated_feature_composer.1",
    "excite": "gated_feature_composer.3",
    "attention": "attn",
    "attention.out_proj": "attn.out_proj",
    "transform": "trans_sv.0",
    "transform_norm": "trans_sv.1",
    "classifier": "sv_cls_classifier",
}
TERMS = {"csc": "csc", "cls_n": "filter_ce", "norm": "norm", "triplet": "triplet"}


class FilterStep:
    """The reference's numbers: tokens that are free, a classifier, one teacher's filter."""

    def __init__(self, golden):
        self.golden = golden
        self.tokens = nn.Parameter(golden["param_video.map"].clone())
        self.example = batch(self.tokens.detach().mean(dim=1), [golden["step1_audio"]], golden["labels"])
        self.method = build("mnf_csc", self.example, heads=2)
        self.classifier = nn.Linear(6, 4).double()
        self.parameters = {"video.map": self.tokens}
        self.parameters |= {f"video.cls.{part}": value for part, value in self.classifier.named_parameters()}
        for name, parameter in self.method.heads[0].named_parameters():
            layer, _, part = name.rpartition(".")
            part = {"scale": "weight", "shift": "bias"}.get(part, part)
            self.parameters[f"mnf.{LAYERS[layer]}.{part}"] = parameter
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(golden[f"param_{name}"])

    def student(self):
        feature = self.tokens.mean(dim=1)
        return StudentOutput(feature, self.classifier(feature), (self.tokens.mT[:, :, :, None, None],))

    def terms(self):
        terms = self.method(self.student(), self.example.embeddings(), self.example.batch)
        return {name.removesuffix("/t0"): value for name, value in terms.items()}


@of("mnf_csc")
@pytest.mark.parametrize(("losses", "gradients"), [("term", "loop1_step"), ("masked", "masked_grad")])
def test_mnf_csc_takes_a_step(golden, losses, gradients):
    step = FilterStep(golden)
    if losses == "masked":
        step.example.present = golden["masked_present"][None]
    terms = step.terms()
    for theirs, ours in TERMS.items():
        assert_close(
            terms[ours].detach(), golden[f"{losses}_{theirs}_loss"], GUARD if ours == "csc" else 1e-9
        )
    ce = cross_entropy(step.student().logits, golden["labels"]).mean()
    (ce + torch.stack(list(terms.values())).sum()).backward()
    for name, parameter in step.parameters.items():
        expected = golden[f"{gradients}_{name}"]
        if expected.abs().max() < 1e-12:  # of a bias before batch normalisation
            assert parameter.grad.abs().max() < 1e-12
        else:
            assert_close(parameter.grad, expected, GUARD)


@of("mnf_csc")
@pytest.mark.parametrize("labels", ["mixed", "single"])
@pytest.mark.parametrize("kind", ["fixed0.07", "adaptive0.07"])
def test_the_contrast_of_mnf_csc_without_the_guard(golden, kind, labels):
    student, video = (golden[name].clone().requires_grad_() for name in ("csc_video", "csc_selected"))
    method = FilterStep(golden).method
    method.options = MNFCSCOptions(adaptive=False)
    if kind.startswith("adaptive"):
        method._temperatures = lambda *_: golden["csc_cos_positive"] + 0.07
    classes = golden["labels"] if labels == "mixed" else torch.zeros(8)
    loss = method._contrastive_loss(student, video.detach(), video, classes, EVERYONE).mean()
    loss.backward()
    case = f"csc_noeps_{kind}_{labels}"
    assert_close(loss.detach(), golden[f"{case}_loss"], 1e-9)
    assert_close(student.grad, golden[f"{case}_grad_video"], 1e-9)
