"""What single methods do beyond their published values: options, refusals, state."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from ccl_cli.errors import RecipeError
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.methods.components.losses import cross_entropy, unit_rows
from ccl_cli.methods.components.relational import relate
from ccl_cli.methods.ifd import pool_stage
from ccl_cli.methods.queue_kl import queue_size
from ccl_cli.teachers import Embedding
from ccl_cli.training.train import train
from tests.helpers.golden import assert_close
from tests.methods.distilling import Example, build, make, run
from tests.training.runs import lines, recipe


@pytest.mark.parametrize(
    ("variant", "weight"), [("fitnet logsum", 1), ("cckd neighbour", 0.02), ("pkt batchmean", 468.75)]
)
def test_the_default_weight_follows_the_variant_but_one_that_is_set_stays(variant, weight):
    assert build(variant, Example()).options.weight == weight
    assert build(variant, Example(), weight=3).options.weight == 3


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("fitnet", dict(regressor="identity"), r"as wide as the student \(6\), but 't1' has 9"),
        ("cmc", dict(heads="identity"), "6, 6, 9"),
        ("mnf_csc", dict(heads=4), "4 does not divide the student's width, 6"),
        ("ccl", dict(temperature={"adio": 0.5}), "no teacher or modality 'adio'"),
        ("ccl", dict(composition=False, nce=False), "cannot both be off"),
        ("crd", dict(temperature=0.001), "temperature"),  # the exponentials of Z would overflow
    ],
)
def test_what_cannot_be_built_is_refused(variant, options, message):
    with pytest.raises((RecipeError, ValidationError), match=message):
        build(variant, Example(), **options)


@pytest.mark.parametrize(
    ("variant", "options", "count"),
    [
        ("fitnet", {}, 9 * 6 + 9),
        ("fitnet linear", {}, 6 * 6 + 6 + 9 * 6 + 9),
        ("fitnet norm", {}, 6 * 6 + 9 * 6 + 3 * (6 + 9)),
        ("fitnet logsum", {}, 6 * 6 + 9 * 6 + 4 * (6 + 9) + 6 * 6 + 9 * 9),
        ("cckd neighbour", {}, 9 * 6 + 9),
        ("cckd", {}, 0),
    ],
)
def test_layers_are_learned_only_where_they_are_needed(variant, options, count):
    method = build(variant, Example(), **options)
    assert sum(parameter.numel() for parameter in method.parameters()) == count


@pytest.mark.parametrize("scale", [0, 1, 1e20])
def test_log_sum_is_the_logarithm_of_the_sum_of_fourth_powers_also_of_none_and_of_large_ones(scale):
    example = Example(dims=(6,), absent=(), dtype=torch.float32)
    difference = example.feature - 1
    example.feature, example.teachers = scale * difference, [0 * difference]
    terms, _ = run(build("fitnet logsum", example, regressor="identity"), example)
    powers = (difference.double() ** 4).sum(dim=1).log()
    expected = powers.mean().item() + 4 * math.log(scale) if scale else math.log(1e-5)
    assert terms["fitnet/t0"].item() == pytest.approx(expected, rel=1e-4)


def test_related_rows_are_zero_where_absent_on_both_sides():
    example = Example()
    present = example.present[0]
    *sides, everywhere = relate(example.feature, example.teachers[0] / present[:, None], present)
    assert torch.equal(everywhere, present)
    for anchor, candidate in sides:
        assert torch.equal(anchor, candidate)
        assert torch.equal(anchor.any(dim=1), present)


def test_pkt_of_joined_teachers_has_the_average_cosine_and_the_rows_that_both_have():
    example = Example(7, (6, 9), ((2,), (5,)))
    terms, (gradient, *_) = run(build("pkt concat", example, weight=1), example)
    kept = example.present.all(dim=0)
    cosines = [(u := unit_rows(x[kept])) @ u.mT for x in (*example.teachers, example.feature)]
    p, q = (F.normalize(1 + cosine, p=1) for cosine in ((cosines[0] + cosines[1]) / 2, cosines[2]))
    assert terms["pkt/t0+t1"].item() == pytest.approx((p * (p / q).log()).mean().item(), rel=1e-5)
    assert gradient[~kept].abs().max() == 0


@pytest.mark.parametrize("gap", [0, 1e-7])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_rkd_leaves_equal_rows_out_of_pairs_and_angles(side, gap):
    example = Example(5, (6,), ())
    rows = example.feature if side == "student" else example.teachers[0]
    rows[3] = rows[1] + gap
    terms, gradients = run(build("rkd", example, distance=1, angle=1), example)
    ratios = []
    for x in (example.feature, example.teachers[0]):
        distances = torch.cdist(x, x)
        ratios.append(distances / (distances.sum() / 20))
    apart = 1 - torch.eye(5)
    apart[1, 3] = apart[3, 1] = 0
    huber = F.smooth_l1_loss(*ratios, reduction="none")
    expected = ((huber * apart).sum(dim=1) / torch.tensor([5, 4, 5, 4, 5])).mean()
    assert terms["distance/t0"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert gradients[0].abs().max() < 10


# ---- ifd


def test_ifd_gives_the_embedding_of_a_teacher_without_stages_to_every_stage_if_asked():
    example = Example(absent=())
    terms, _ = run(build("ifd", example, stages="broadcast_last"), example)
    example.feature = example.stage.mean(dim=(2, 3, 4))
    expected, _ = run(build("ifd", example), example)
    assert terms["stage1/t0"].item() == pytest.approx(100 * expected["ifd/t0"].item(), rel=1e-9)
    with pytest.raises(RecipeError, match=r"no teacher has as many stages as the student \(2\)"):
        run(build("ifd", example, stages="auto"), example)


def test_ifd_counts_the_cosine_of_opposite_rows_as_a_millionth_in_place_of_zero():
    example = Example(2, (3,), (), 2)
    example.feature, example.teachers = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), [torch.ones(2, 3)]
    terms, _ = run(build("ifd", example, kernel="cosine"), example)
    q = torch.tensor([1, 1e-6]).double() / (1 + 1e-6)
    expected = ((0.5 - q) * (math.log(0.5) - q.log())).sum().item()
    assert terms["ifd/t0"].item() == pytest.approx(expected / 2, rel=1e-3)


def test_ifd_stages_weigh_less_from_epoch_to_epoch_as_published_or_over_the_run():
    def weight(epochs, epoch, **options):
        example = Example(absent=())
        method = build("ifd stages", example, epochs=epochs, alpha=100, **options)
        terms = method(example.student(), example.embeddings(), example.batch._replace(epoch=epoch))
        method.options = method.options.model_copy(update={"decay": 1})
        whole = method(example.student(), example.embeddings(), example.batch)
        return (terms["stage1/t0"] / whole["stage1/t0"]).item()

    assert weight(300, 13) == weight(50, 13) == pytest.approx(0.0097, abs=1e-4)
    assert weight(300, 299, stretch=True) == pytest.approx(0.7 ** (299 * 50 / 300))
    assert weight(50, 49, stretch=True) == weight(50, 49)


@pytest.mark.parametrize(
    ("shape", "width"), [((4, 3, 5, 6, 6), 24), ((4, 3, 6, 6), 12), ((4, 3, 5), 6), ((4, 3), 3)]
)
def test_stages_of_any_shape_are_pooled_to_the_same_cells(shape, width):
    stage = torch.rand(shape)
    assert pool_stage(stage, (2, 2, 2)).shape == (4, width)
    assert_close(pool_stage(stage, (1, 1, 1)), stage.flatten(2).mean(2) if stage.dim() > 2 else stage, 1e-6)


def test_a_real_image_network_shows_stages_that_a_real_student_follows(clips_folder):
    teachers, method = ["image:resnet18?weights=random&size=32"], {"ifd": {"stages": "auto"}}
    first, *_ = lines(train(recipe(clips_folder, teachers=teachers, method=method, train={"max_steps": 1})))
    for number in (1, 2, 3):
        assert first[f"stage{number}/image:resnet18"] > 0
    assert "stage4/image:resnet18" not in first


# ---- kd


def test_kd_probes_learn_from_the_labels_of_the_rows_that_are_there_and_from_nothing_else():
    example = Example(7, (6,), ((2, 5),))
    method = build("kd", example, probe_weight=3)
    terms, _ = run(method, example)
    kept = example.present[0]
    scores = method.heads[0](example.teachers[0][kept])
    expected = 3 * cross_entropy(scores, example.labels[kept]).mean()
    assert terms["probe/t0"].item() == pytest.approx(expected.item(), rel=1e-12)
    term = method(example.student(), example.embeddings(), example.batch)["kd/t0"]
    assert not term.requires_grad  # nothing of the student's requires gradients here


def test_kd_averages_the_teachers_that_a_row_has():
    example = Example(4, (6, 9), ((1, 3), (2, 3)))
    method = build("kd average", example, weight=1)
    terms, (_, gradient, _) = run(method, example)
    first, second = (
        (probe(value) / 4).softmax(dim=1) for probe, value in zip(method.heads, example.teachers, strict=True)
    )
    target = torch.stack([(first[0] + second[0]) / 2, second[1], first[2]])
    log_q = (example.logits[:3] / 4).log_softmax(dim=1)
    expected = 16 * (target * (target.log() - log_q)).sum(dim=1).mean().item()
    assert terms["kd/t0+t1"].item() == pytest.approx(expected, rel=1e-9)
    assert gradient[3].abs().max() == 0


# ---- queue_kl


def test_the_queue_takes_in_neither_absent_rows_nor_zero_embeddings_nor_anything_in_evaluation():
    example = Example(dims=(5,), absent=((2, 5),))
    example.teachers[0][3] = 0
    method = build("queue_kl", example)
    run(method.eval(), example)
    assert not method.heads[0].filled.any()
    _, (gradient, *_) = run(method.train(), example)
    (made,) = method.heads
    assert_close(made.queue[:4], unit_rows(example.teachers[0][[0, 1, 4, 6]]), 1e-12)
    assert made.filled.tolist() == [True] * 4 + [False] * 8
    assert gradient[[2, 3, 5]].abs().sum() == 0


def test_a_sample_of_training_videos_stands_in_for_the_queue():
    """Of the rows that were drawn one lacks the teacher, and no row is compared with itself."""
    example = Example(dims=(5,), absent=((2,),))
    method = build("queue_kl", example, anchors="sample", size=6)
    (made,) = method.heads
    everything = Embedding(example.teachers[0], example.present[0])
    method.use_cached(lambda name, rows: Embedding(everything.value[rows], everything.present[rows]))
    before = made.queue.clone()
    terms, _ = run(method, example)
    assert torch.equal(made.queue, before)
    expected = []
    for row in (0, 1, 3, 4, 5, 6):
        anchors = unit_rows(everything.value[[each for each in made.rows.tolist() if each not in (row, 2)]])
        student, teacher = made.project(example.feature[row]), everything.value[row]
        log_q, log_p = ((anchors @ unit_rows(x) / 0.07).log_softmax(dim=0) for x in (student, teacher))
        expected.append((log_p.exp() * (log_p - log_q)).sum())
    assert_close(terms["queue_kl/t0"], torch.stack(expected).mean().detach(), 1e-9)
    with pytest.raises(RecipeError, match=r"needs a cache of the embeddings of t0\..*cache.use=build"):
        method.use_cached(lambda name, rows: None)


@pytest.mark.parametrize(("videos", "size"), [(7, 16), (50, 32), (999, 256), (19_999, 4096), (20_000, 8192)])
def test_the_published_size_of_the_queue_follows_the_number_of_videos(videos, size):
    assert queue_size(videos) == size


# ---- unic


def test_unic_in_evaluation_drops_nobody_and_changes_nothing():
    example = Example(absent=())
    method = build("unic", example)
    before = {name: value.clone() for name, value in method.named_buffers()}
    terms, _ = run(method.eval(), example)
    expected, _ = run(build("unic", example, drop=0), example)
    assert terms == {name: pytest.approx(value.item()) for name, value in expected.items()}
    assert all(torch.equal(value, before[name]) for name, value in method.named_buffers())
    assert method.random.draws == 0


def test_unic_keeps_its_statistics_for_one_row_or_where_targets_stay_as_they_are():
    example = Example(dims=(6,), absent=())
    method = build("unic", example, standardize="none")
    terms, _ = run(method, example)
    prediction, target = method.heads[0](example.feature), example.teachers[0]
    loss = (1 - F.cosine_similarity(prediction, target)).mean() + F.smooth_l1_loss(prediction, target)
    assert terms["unic/t0"].item() == pytest.approx(loss.item() / 2, rel=1e-9)
    one = Example(dims=(6,), absent=(range(1, 7),))
    other = build("unic", one)
    run(other, one)
    assert method.heads[0].mean.abs().sum() == other.heads[0].mean.abs().sum() == 0


# ---- mnf_csc


def test_mnf_csc_trains_the_student_by_its_contrast_alone_and_with_two_rows_or_more():
    example = Example(dims=(9,), absent=())
    method = build("mnf_csc", example)
    leaves = example.leaves()
    terms = method(example.student(leaves), example.embeddings(), example.batch)
    for name in ("filter_ce", "triplet", "norm"):
        found = torch.autograd.grad(terms[f"{name}/t0"], leaves, allow_unused=True, retain_graph=True)
        assert all(gradient is None or gradient.abs().sum() == 0 for gradient in found)
    (gradient,) = torch.autograd.grad(terms["csc/t0"], method.heads[0].attention.out_proj.weight)
    assert gradient.abs().sum() > 0
    example.present[0, 1:] = False
    terms, gradients = run(method, example)
    assert all(value == 0 for value in (*terms.values(), *(each.abs().sum() for each in gradients)))


def test_the_temperature_of_mnf_csc_adapts_to_positive_cosines():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert build("mnf_csc", Example())._temperatures(one, other).tolist() == [
        pytest.approx([0.07, 0.07, 1.07])
    ]


@pytest.mark.parametrize("stages", [(), (torch.zeros(7, 5, 1, 2, 2),)])
def test_a_student_without_a_stage_as_wide_as_its_feature_is_refused(stages):
    example = Example()
    with pytest.raises(RecipeError, match=r"needs a last stage"):
        build("mnf_csc", example)(
            example.student()._replace(stages=stages), example.embeddings(), example.batch
        )


# ---- ccl

ABLATIONS = {
    "no composition": (dict(composition=False), "nce"),
    "no nce": (dict(nce=False), "ce jsd"),
    "no jsd": (dict(jsd=False), "ce nce"),
    "joint": (dict(gradient="joint"), "ce jsd nce"),
    "official": (dict(preset="official"), "ce jsd jsd_head nce nce_head nce_teacher"),
    "official, no nce": (dict(preset="official", nce=False), "ce jsd jsd_head"),
    "official, no jsd": (dict(preset="official", jsd=False), "ce nce nce_head nce_teacher"),
}


@pytest.mark.parametrize(("options", "terms"), ABLATIONS.values(), ids=ABLATIONS)
def test_ablations_of_ccl_hold_the_terms_they_say(options, terms):
    example = Example(dims=(6,))
    assert sorted(run(build("ccl", example, **options), example)[0]) == [
        f"{term}/t0" for term in terms.split()
    ]


@pytest.mark.parametrize(
    ("options", "terms"),
    [({}, "jsd nce"), (dict(gradient="joint"), "ce jsd nce"), (dict(preset="official"), "jsd nce")],
)
def test_the_terms_of_ccl_that_train_the_student(options, terms):
    """The others train the composition alone."""
    example = Example(dims=(6,))
    leaves = example.leaves()
    values = build("ccl", example, **options)(example.student(leaves), example.embeddings(), example.batch)
    found = {
        name: torch.autograd.grad(value, leaves, allow_unused=True, retain_graph=True)
        for name, value in values.items()
    }
    training = [name for name, each in found.items() if any(gradient is not None for gradient in each)]
    assert sorted(training) == [f"{term}/t0" for term in terms.split()]


@pytest.mark.parametrize("symmetric", ["none", "mean", "sum"])
def test_the_contrasts_of_ccl_are_of_one_direction_or_of_both(symmetric):
    """InfoNCE of the teacher alone, where its definition is one line."""
    example = Example(dims=(6,), absent=())
    options = dict(contrast="infonce", nce_lambda=1, temperature={"t0": 0.1}, symmetric=symmetric)
    value = run(build("ccl", example, **options), example)[0]["nce/t0"].item()
    scores = unit_rows(example.feature) @ unit_rows(example.teachers[0]).mT / 0.1
    forth, back = (F.cross_entropy(each, torch.arange(7)).item() for each in (scores, scores.mT))
    expected = {"none": forth, "mean": (forth + back) / 2, "sum": forth + back}[symmetric]
    assert value == pytest.approx(expected, rel=1e-12)


def test_ccl_takes_the_temperature_of_the_teacher_of_its_modality_or_the_default():
    names = ("m0:t", "m1:t", "audio:t")
    infos = tuple(TeacherInfo(name, name.partition(":")[0], 5) for name in names)
    setting = Setting(6, 4, torch.zeros(7, dtype=torch.long), infos)
    method = make("ccl", setting, temperature={"m0": 0.3, "m1:t": 0.2})
    assert [method._temperature(info) for info in infos] == [0.3, 0.2, 0.5]
