"""What must hold whatever the numbers: losses, sampler, manifests, windows, specs, metrics."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from distilling import CLASSES, VARIANTS, Example
from distilling import build as build_relational
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ccl_cli.config.recipe import Clip
from ccl_cli.config.spec import Spec, parse_data, parse_model
from ccl_cli.data.clips.batch import Batch
from ccl_cli.data.clips.dataset import TrainingSet
from ccl_cli.data.clips.epoch_sampler import Draw, EpochSampler
from ccl_cli.data.clips.transforms import _random_crop, eval_view, train_view
from ccl_cli.data.clips.window import Window
from ccl_cli.data.clips.windows import SlidingWindows
from ccl_cli.data.manifest import SPLITS, Manifest, Video
from ccl_cli.data.sources import csv as csv_source
from ccl_cli.data.video.metadata import VideoMetadata
from ccl_cli.data.video.reader import iter_windows, open_video, read_frames
from ccl_cli.data.video.storage import Member, Packed
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import CclError
from ccl_cli.evaluation.metrics import directions, recognition, retrieval
from ccl_cli.methods import Setting, TeacherInfo, losses
from ccl_cli.methods.cckd import congruence, taylor_kernel
from ccl_cli.methods.ccl import CCL
from ccl_cli.methods.cmc import CMC
from ccl_cli.methods.crd import CRD
from ccl_cli.methods.fitnet import hint
from ccl_cli.methods.ifd import ifd
from ccl_cli.methods.kd import soft_targets
from ccl_cli.methods.pkt import pkt
from ccl_cli.methods.relational import Rows
from ccl_cli.methods.rkd import angle_loss, comparable, distance_loss, geometry
from ccl_cli.search import query
from ccl_cli.search.store import create, open_library
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from tests.reliability import plain

ANY = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
CONTRASTS = {
    "ccl": (CCL, {}),
    "ccl official": (CCL, dict(preset="official")),
    "ccl infonce": (CCL, dict(contrast="infonce", symmetric="mean", divergence="js", gradient="joint")),
    "ccl alone": (CCL, dict(composition=False)),
    "crd": (CRD, dict(dim=8)),
    "cmc": (CMC, dict(dim=8)),
    "cmc nce": (CMC, dict(dim=8, loss="nce", graph="full")),
}
METHODS = [*VARIANTS, *CONTRASTS]


@pytest.fixture
def holds(tally, trials) -> Callable[..., None]:
    """Check a property on examples that hypothesis makes, always the same; all of them are counted."""

    def run(what: str, check: Callable[..., None], *, quick: int = 15, long: int = 500, **strategies) -> None:
        tried = 0

        def counted(**values):
            nonlocal tried
            check(**values)
            tried += 1  # not those that hypothesis was told to leave out

        failed = 1
        try:
            settings(ANY, max_examples=len(trials(quick, long)))(given(**strategies)(counted))()
            failed = 0
        finally:
            tally.count(what, tried + failed, failed)

    return run


def build(name: str, example: Example):
    if name in VARIANTS:
        return build_relational(name, example)
    cls, options = CONTRASTS[name]
    infos = tuple(TeacherInfo(f"t{k}", "any", v.shape[1]) for k, v in enumerate(example.teachers))
    torch.manual_seed(0)
    method = cls(
        cls.Options(**options), Setting(example.feature.shape[1], CLASSES, example.labels, infos, 20)
    )
    return method.double() if example.feature.dtype == torch.float64 else method


def run(method, example: Example, rows: torch.Tensor | None = None):
    """Terms, and the gradients of their sum at the student's feature, logits and stage."""
    leaves = example.leaves()
    feature, logits, stage = leaves
    embeddings = {
        f"t{k}": Embedding(torch.where(present[:, None], value, 0.0), present)
        for k, (value, present) in enumerate(zip(example.teachers, example.present, strict=True))
    }
    rows = torch.arange(len(feature)) if rows is None else rows
    batch = Batch(torch.empty(0), example.labels, rows, {}, 0)
    terms = method(
        StudentOutput(feature, logits, (stage, feature[:, :, None, None, None])), embeddings, batch
    )
    loss = sum(terms.values()) + 0 * sum(leaf.sum() for leaf in leaves)
    return {name: value.detach() for name, value in terms.items()}, torch.autograd.grad(loss, leaves)


# ---- losses


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_finite_whatever_the_scale(name, holds):
    def check(seed, rows, absent, student, teacher, equal, labels):
        example = Example(rows, (6, 9), ([row % rows for row in absent], ()), dtype=torch.float32, seed=seed)
        if equal:  # rows that are the same, or zero
            example.feature[: rows // 2] = example.feature[0] * (equal == 1)
            example.teachers[0][rows // 2 :] = example.teachers[0][-1] * (equal == 1)
        if labels:
            example.labels[:] = 1
        # Its products of four numbers leave single precision first; training skips such a step.
        teacher, student = (
            min(power, 6) if name == "cckd bilinear" else power for power in (teacher, student)
        )
        example.feature, example.stage = example.feature * 10.0**student, example.stage * 10.0**student
        example.logits = (example.logits - 0.5) * 10.0 ** min(student, 4)
        example.teachers = [value * 10.0**teacher for value in example.teachers]
        method = build(name, example)
        for _ in range(2):  # with what a bank remembers
            terms, gradients = run(method, example)
            assert all(torch.isfinite(value) for value in terms.values()), terms
            assert all(torch.isfinite(each).all() for each in gradients), "gradient"

    holds(
        "losses of all methods: finite, with finite gradients, from 1e-30 to 1e15",
        check,
        quick=6,
        long=150,
        seed=st.integers(0, 2**20),
        rows=st.integers(1, 8),
        absent=st.lists(st.integers(0, 7), max_size=8),
        student=st.sampled_from([-30, -12, -6, -3, 0, 0, 3, 6, 9, 15]),
        teacher=st.sampled_from([-30, -12, -6, -3, 0, 0, 3, 6, 9, 15]),
        equal=st.sampled_from([0, 0, 1, 2]),
        labels=st.booleans(),
    )


@pytest.mark.parametrize("name", [name for name in METHODS if name != "cckd neighbour"])
def test_the_order_of_a_batch_says_nothing(name, holds):
    def check(seed, rows, order):
        example = Example(rows, (6, 9), ((0,), ()), seed=seed)
        order = torch.tensor(order.sample(range(rows), rows))
        terms, gradients = run(build(name, example), example)
        # A bank belongs to the videos: they keep their places in the list.
        method = build(name, example)
        moved, others = run(method, example.select(order), order)
        for key, value in terms.items():
            assert moved[key].item() == pytest.approx(value.item(), rel=1e-7, abs=1e-9)
        for gradient, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(other, gradient[order], rtol=1e-6, atol=1e-8)

    holds(
        "losses of all methods: a batch in another order",
        check,
        quick=4,
        long=80,
        seed=st.integers(0, 2**20),
        rows=st.integers(2, 9),
        order=st.randoms(use_true_random=False),
    )


@pytest.mark.parametrize("name", ["ccl", "ccl official", "ccl infonce", "ccl alone"])
def test_absent_rows_are_as_if_they_were_not_there(name, holds):
    def check(seed, absent, junk):
        example = Example(8, (6,), (absent,), seed=seed)
        example.teachers[0][sorted(absent)] = junk
        kept = [row for row in range(8) if row not in absent]
        method = build(name, example)
        terms, gradients = run(method, example)
        expected, others = run(method, example.select(kept))
        for key, value in terms.items():
            assert value.item() == pytest.approx(expected[key].item(), rel=1e-9, abs=1e-9)
        for gradient, other in zip(gradients, others, strict=True):
            assert not gradient[sorted(absent)].any()
            torch.testing.assert_close(gradient[kept], other, rtol=1e-7, atol=1e-9)

    holds(
        "ccl and its variants: rows that a teacher lacks change nothing",
        check,
        quick=5,
        long=100,
        seed=st.integers(0, 2**20),
        absent=st.sets(st.integers(0, 7), min_size=1, max_size=7),
        junk=st.sampled_from([0.0, 1e6, math.nan, math.inf]),
    )


def _batch():
    """Seeds of a batch of rows, of its width and of its spread."""
    return dict(
        seed=st.integers(0, 2**30),
        count=st.integers(2, 7),
        width=st.integers(2, 6),
        spread=st.sampled_from([0.1, 1.0, 5.0]),
    )


def _pair(seed, count, width, spread):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(0, spread, (2, count, width)) + 0.01
    return torch.from_numpy(first), torch.from_numpy(second), rng


def _everyone(x):
    return torch.ones(len(x), dtype=torch.bool)


def _rkd(loss, first, second):
    pair = geometry(Rows(first, first), _everyone(first)), geometry(Rows(second, second), _everyone(first))
    return loss(*pair, comparable(*pair, _everyone(first))).mean()


def _taylor(x):
    return taylor_kernel(Rows(x, x))


# Ours, and the same from the formula.
FORMULAS = {
    "pkt": (lambda x, y: pkt(Rows(x, x), Rows(y, y), _everyone(x), 1e-12).mean(), plain.pkt),
    "cckd": (lambda x, y: congruence(_taylor(x), _taylor(y), _everyone(x)).mean(), plain.cckd),
    "rkd distance": (lambda x, y: _rkd(distance_loss, x, y), plain.rkd_distance),
    "rkd angle": (lambda x, y: _rkd(angle_loss, x, y), plain.rkd_angle),
    "infonce": (
        lambda x, y: losses.info_nce(
            losses.cosine_scores(x, y, 0.2), torch.arange(len(x)), _everyone(x)
        ).mean(),
        lambda x, y: plain.info_nce(x, y, 0.2),
    ),
    "fitnet": (
        lambda x, y: hint(x, y).mean(),
        lambda x, y: plain.mean(
            [(a - b) ** 2 for p, q in zip(x, y, strict=True) for a, b in zip(p, q, strict=True)]
        ),
    ),
    "half Jeffreys": (
        lambda x, y: losses.half_jeffreys(x, y).mean(),
        lambda x, y: plain.mean(list(map(plain.half_jeffreys, x, y))),
    ),
    "Jensen-Shannon": (
        lambda x, y: losses.jensen_shannon(x, y).mean(),
        lambda x, y: plain.mean(list(map(plain.jensen_shannon, x, y))),
    ),
    "soft targets": (
        lambda x, y: soft_targets(x, (y / 4).softmax(1), 4.0).mean(),
        lambda x, y: plain.mean([plain.soft_targets(a, b, 4.0) for a, b in zip(x, y, strict=True)]),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_losses_are_those_of_the_formula(name, holds):
    ours, theirs = FORMULAS[name]

    def check(**numbers):
        first, second, _ = _pair(**numbers)
        assert ours(first, second).item() == pytest.approx(
            theirs(first.tolist(), second.tolist()), rel=1e-6, abs=1e-9
        )

    holds("losses against loops over the formula", check, long=300, **_batch())


def test_the_contrast_of_classes_is_that_of_the_formula(holds):
    def check(classes, temperature, **numbers):
        first, second, rng = _pair(**numbers)
        labels = torch.from_numpy(rng.integers(0, classes, len(first)))
        scores = losses.cosine_scores(first, second, temperature)
        value = losses.multiclass_nce(scores, labels[:, None] == labels, _everyone(first)).mean()
        expected = plain.multiclass_nce(first.tolist(), second.tolist(), labels.tolist(), temperature)
        assert value.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert value.item() >= 0

    more = dict(classes=st.integers(1, 4), temperature=st.sampled_from([0.3, 0.5, 1.0]))
    holds("losses against loops over the formula", check, long=400, **more, **_batch())


def test_the_composition_is_that_of_the_formula(holds):
    def check(**numbers):
        first, second, _ = _pair(**numbers)
        torch.manual_seed(numbers["seed"])
        head = losses_head(first.shape[1])
        found = head(first, second).feature
        weight, bias = head.residual.weight.tolist(), head.residual.bias.tolist()
        for row, x, y in zip(found.tolist(), first.tolist(), second.tolist(), strict=True):
            assert row == pytest.approx(plain.compose(x, y, weight, bias), rel=1e-9, abs=1e-9)

    holds("losses against loops over the formula", check, long=500, **_batch())


def losses_head(width: int):
    from ccl_cli.methods.composition import CompositionHead

    return CompositionHead(width, width, 3).double()


# Which losses are lowest, zero, where both sides agree; which do not see the length of single rows.
NOTHING_LEFT = [
    "pkt",
    "cckd",
    "rkd distance",
    "rkd angle",
    "fitnet",
    "half Jeffreys",
    "Jensen-Shannon",
    "soft targets",
]
LENGTHLESS = ["pkt", "cckd", "infonce"]


@pytest.mark.parametrize("name", NOTHING_LEFT)
def test_a_student_that_agrees_has_nothing_to_lose(name, holds):
    ours, _ = FORMULAS[name]

    def check(**numbers):
        first, second, _ = _pair(**numbers)
        same = first.clone().requires_grad_()
        value = ours(same, first)
        assert abs(value.item()) < 1e-9
        assert torch.autograd.grad(value, same)[0].abs().max() < 1e-5
        assert ours(first, second).item() > -1e-9
        assert name != "Jensen-Shannon" or ours(first, second).item() <= math.log(2) + 1e-12

    holds(
        "losses: zero and flat where student and teacher agree, else not below", check, long=400, **_batch()
    )


@pytest.mark.parametrize("name", LENGTHLESS)
def test_cosines_do_not_see_lengths(name, holds):
    ours, _ = FORMULAS[name]

    def check(power, **numbers):
        first, second, rng = _pair(**numbers)
        lengths = torch.from_numpy(10.0 ** rng.uniform(-power, power, (len(first), 1)))
        assert ours(first * lengths, second).item() == pytest.approx(
            ours(first, second).item(), rel=1e-6, abs=1e-8
        )

    holds("losses of cosines: rows of any length", check, long=500, power=st.integers(0, 3), **_batch())


def test_neighbourhoods_of_ifd_agree_where_rows_do(holds):
    def check(kernel, **numbers):
        first, second, _ = _pair(**numbers)
        there = _everyone(first)
        assert ifd(Rows(first, first), Rows(first, first), there, kernel).abs().max() < 1e-9
        both = ifd(Rows(first, first), Rows(second, second), there, kernel)
        swapped = ifd(Rows(second, second), Rows(first, first), there, kernel)
        assert (both > -1e-9).all()
        torch.testing.assert_close(both, swapped)

    kernels = st.sampled_from(["combined", "cosine", "student_t"])
    holds(
        "losses: zero and flat where student and teacher agree, else not below",
        check,
        long=400,
        kernel=kernels,
        **_batch(),
    )


# ---- sampler

SIZES = dict(
    videos=st.integers(1, 60),
    rows=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)


def _drawn(processes: int, videos, rows, accumulation, epochs, seed, start=0) -> list[list[Draw]]:
    """Each micro-batch of a run over so many processes, as one list; the batch is divisible by 1, 2, 3, 4."""
    batch = 12 * rows * accumulation
    ranks = [
        EpochSampler(videos, batch, epochs, seed, accumulation, rank, processes, start)
        for rank in range(processes)
    ]
    parts = [list(each) for each in ranks]
    assert [len(each) for each in ranks] == [len(part) for part in parts]
    return [list(chain.from_iterable(micro)) for micro in zip(*parts, strict=True)]


def test_each_epoch_is_a_permutation(holds):
    def check(**sizes):
        for epoch in range(sizes["epochs"]):
            seen = [draw.row for micro in _drawn(1, **sizes) for draw in micro if draw.epoch == epoch]
            videos = sizes["videos"]
            assert sorted(seen[:videos]) == list(range(videos))
            assert seen == (seen[:videos] * len(seen))[: len(seen)]  # filled up from its start
            assert videos <= len(seen) < videos + 12 * sizes["rows"] * sizes["accumulation"]

    holds("sampler: each epoch is a permutation, filled up from its start", check, **SIZES)


def test_processes_share_the_same_batches(holds):
    def check(processes, **sizes):
        alone, together = _drawn(1, **sizes), _drawn(processes, **sizes)
        assert together == alone  # disjoint and complete, in the order of the ranks

    holds("sampler: 2 to 4 processes have the batches of one", check, processes=st.integers(2, 4), **SIZES)


def test_a_run_goes_on_from_any_step(holds):
    def check(start, processes, **sizes):
        whole = _drawn(processes, **sizes)
        rest = _drawn(processes, **sizes, start=start)
        assert rest == whole[start * sizes["accumulation"] :]

    more = dict(start=st.integers(0, 40), processes=st.sampled_from([1, 2, 3, 4]))
    holds("sampler: goes on from any step, on any number of processes", check, **more, **SIZES)


# ---- manifests and tables

TEXT = st.text(min_size=1, max_size=12)  # lone surrogates aside; those are below
NASTY = st.sampled_from(
    [
        "a,b",
        'say "x"',
        "line\nbreak",
        "é\u0301",
        "‮",
        "\u2028",
        "\x00",
        "'",
        "-1",
        "=1+1",
        "\ufeffa",
        "\udcff",
        " a ",
        "𝄞",
    ]
)
NAMES = TEXT | NASTY
SECONDS = st.none() | st.floats(0, 1e6, allow_nan=False) | st.integers(0, 10**6)


@st.composite
def manifests(draw):
    classes = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    ids = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    videos = []
    for place, name in enumerate(ids):
        path: Path | Packed = Path("/v", draw(NAMES).replace("\0", "0"))
        if draw(st.booleans()):
            path = Packed(
                "/s/a.tar",
                draw(NAMES),
                (Member("mp4", draw(st.integers(0, 2**40)), place),),
                draw(st.just("") | NAMES),
            )
        start, end = draw(SECONDS), draw(SECONDS)
        if end is not None and end <= (start or 0):
            end = None
        label = draw(st.integers(0, len(classes) - 1))
        videos.append(Video(name, path, label, draw(st.sampled_from(SPLITS)), start, end))
    return Manifest(draw(NAMES), tuple(classes), tuple(videos))


def _expect(words: str, error: CclError) -> None:
    assert words in error.message, error.message


def test_manifests_are_read_as_they_were_written(holds, tmp_path):
    def check(manifest, root):
        manifest.save(tmp_path / "m.jsonl", Path("/v") if root else None)
        try:
            again = Manifest.load(tmp_path / "m.jsonl")
        except CclError as error:
            # A path that leaves the root is refused, nothing else.
            _expect("leaves the folder", error)
            return
        assert again == manifest
        assert again.hash == manifest.hash

    holds("manifests: read as they were written, any names", check, manifest=manifests(), root=st.booleans())


CELLS = NAMES.map(str.strip).filter(bool).filter(lambda text: "\0" not in text and "\udcff" not in text)


def test_tables_are_read_as_they_were_written(holds, tmp_path):
    def check(rows, delimiter):
        assume(len({(path, start) for path, *_, start in rows}) == len(rows))
        with (tmp_path / "v.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["path", "label", "split", "start"])
            writer.writerows(
                [path, label, split, "" if start is None else start] for path, label, split, start in rows
            )
        try:
            found = csv_source.load(str(tmp_path / "v.csv"), delimiter=delimiter)
        except CclError as error:
            _expect("the same video as in line", error)  # a/./b and a/b
            return
        assert [found.classes[video.label] for video in found.videos] == [label for _, label, _, _ in rows]
        assert [(video.split, video.start) for video in found.videos] == [
            (split, start) for *_, split, start in rows
        ]
        assert [video.path for video in found.videos] == [tmp_path / path for path, *_ in rows]
        found.validate(())

    row = st.tuples(CELLS, CELLS, st.sampled_from(SPLITS), st.none() | st.floats(0, 1e6, allow_nan=False))
    holds(
        "tables (CSV): read as they were written, any names",
        check,
        rows=st.lists(row, min_size=1, max_size=6),
        delimiter=st.sampled_from(",;\t|"),
    )


WORD = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="?&"), min_size=1, max_size=8)
VALUE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("bcd/.", min_size=1, max_size=6)
)


def test_specs_are_typed_as_they_are_written(holds):
    def check(kind, name, weights, options):
        for parse, spec in (
            (parse_model, Spec(kind, name.replace("@", ""), weights, options)),
            (parse_data, Spec(kind, name, None, options)),
        ):
            assume(spec.name == spec.name.strip() and spec.name and str(spec) == str(spec).strip())
            assert parse(str(spec)) == spec

    holds(
        "specs: typed as they are written",
        check,
        long=1500,
        kind=st.from_regex(r"\A[a-z0-9_]+\Z"),
        name=WORD,
        weights=st.none() | WORD,
        options=st.dictionaries(st.from_regex(r"\A[a-z_][a-z_.-]*\Z"), VALUE, max_size=3),
    )


# ---- windows and time

STEP = 5  # of grey from frame to frame


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> dict[int, Path]:
    """Videos whose every frame shows its own number, by their number of frames."""
    folder = tmp_path_factory.mktemp("counted")
    for count, rate in {1: 25, 2: 10, 3: 29.97, 7: 12.5, 16: 30, 23: 8, 41: 24}.items():
        grey = (20 + STEP * np.arange(count, dtype=np.uint8))[:, None, None, None]
        write_clip(folder / f"{count}.mp4", np.broadcast_to(grey, (count, 16, 16, 3)).copy(), rate)
    return {int(path.stem): path for path in folder.iterdir()}


def numbers_of(frames: torch.Tensor) -> list[int]:
    """[T, H, W, 3] to the numbers that the frames show."""
    return ((frames.double().mean(dim=(1, 2, 3)) - 20) / STEP).round().int().tolist()


STRETCH = dict(
    frames=st.sampled_from([1, 2, 3, 7, 16, 23, 41]),
    length=st.integers(1, 48),
    begin=st.none() | st.floats(0, 0.9),
    share=st.none() | st.floats(0.05, 1),
)


def _stretch(path: Path, begin, share) -> tuple[float | None, float | None, int, int]:
    """Start and end in seconds by shares of the video, and the frames that they mean."""
    info = open_video(path).metadata
    start = None if begin is None else begin * info.duration
    end = None if share is None else (start or 0) + share * (info.duration - (start or 0)) + 1e-3
    return start, end, *info.frame_range(start, end)


def test_windows_cover_every_frame(holds, counted):
    def check(frames, length, stride, begin, share):
        start, end, first, count = _stretch(counted[frames], begin, share)
        seen = [
            numbers_of(clip.frames)
            for clip in iter_windows(counted[frames], length, stride, start=start, end=end)
        ]
        assert all(len(window) == length for window in seen)
        assert all(first <= number < first + count for number in chain.from_iterable(seen))
        for place, window in enumerate(seen):
            begin = first + max(min(place * stride, count - length), 0)
            own = range(begin, min(begin + length, first + count))
            assert window == [own[k % len(own)] for k in range(length)]
        if stride <= length:
            assert {*chain.from_iterable(seen)} == {*range(first, first + count)}
        else:
            assert len(seen) == -(-count // stride)

    holds(
        "sliding windows: every frame, none outside, the last at the end",
        check,
        long=400,
        stride=st.integers(1, 20),
        **STRETCH,
    )


def test_every_video_is_covered_whatever_the_processes(holds, counted):
    videos = [Video(str(count), path, 0, "test") for count, path in sorted(counted.items())]

    def check(length, stride, chunk, processes):
        clip, windows, finished = Clip(frames=length, size=16), Counter(), []
        for rank in range(processes):
            for part in SlidingWindows(
                videos, clip, stride=stride, chunk=chunk, rank=rank, processes=processes
            ):
                assert len(part.windows) == len(part.rows) <= chunk
                assert not part.unreadable
                windows.update(part.rows.tolist())
                finished += part.finished
        assert sorted(finished) == list(range(len(videos)))
        for row, video in enumerate(videos):
            # Windows until one reaches the end; a longer stride also passes over the end.
            past = max(0, int(video.id) - length) if stride <= length else int(video.id) - 1
            assert windows[row] == 1 + (-(-past // stride) if stride <= length else past // stride)

    sizes = dict(
        length=st.integers(1, 20),
        stride=st.integers(1, 20),
        chunk=st.integers(1, 9),
        processes=st.integers(1, 3),
    )
    holds("sliding windows: every video, on 1 to 3 processes", check, quick=5, long=40, **sizes)


class Kept:
    """A teacher's preprocessing that keeps the window it is shown."""

    shape, dtype = (1,), torch.float32

    def __call__(self, window):
        self.window = window
        return torch.zeros(1)


def test_training_windows_lie_inside(holds, counted):
    def check(frames, length, begin, share, seed, epoch):
        start, end, first, count = _stretch(counted[frames], begin, share)
        video, kept = Video("v", counted[frames], 0, "train", start, end), Kept()
        clip = Clip(frames=length, size=8, short_side=16)
        sample = TrainingSet([video], clip, {"any:kept": kept}, seed)[Draw(epoch, 0, 0)]
        assert sample.video.shape == (3, length, 8, 8)
        middle = Window(video, clip)
        for window in (kept.window, middle):
            seen = numbers_of(window.frames)
            own = range(seen[0], min(seen[0] + length, first + count))
            assert first <= seen[0]
            assert len(own) == min(length, count)
            assert seen == [own[k % len(own)] for k in range(length)]
            assert window.start < window.end
        assert abs((middle.start + middle.end) / 2 - _centre(counted[frames], first, count)) <= 1 / 8 + 1e-6

    more = dict(seed=st.integers(0, 99), epoch=st.integers(0, 99))
    holds(
        "windows of training, and the middle one: inside, in order, looped",
        check,
        long=400,
        **more,
        **STRETCH,
    )


def _centre(path: Path, first: int, count: int) -> float:
    info = open_video(path).metadata
    return (info.time(first) + info.time(first + count)) / 2


def test_any_window_is_what_decoding_from_the_start_gives(holds, counted):
    def check(frames, first, count):
        assume(first < frames)
        seen = numbers_of(read_frames(counted[frames], first, count).frames)
        own = range(first, min(first + count, frames))
        assert seen == [own[k % len(own)] for k in range(count)]

    holds(
        "frames by number",
        check,
        long=300,
        frames=st.sampled_from([1, 2, 3, 7, 16, 23, 41]),
        first=st.integers(0, 40),
        count=st.integers(1, 60),
    )


def test_times_and_frames_are_one(holds):
    def check(gaps, begin, base, origin, cut):
        pts = begin + np.cumsum([0, *gaps[:-1]])
        info = VideoMetadata(
            Path("v"),
            pts,
            np.empty((0, 2), np.int64),
            int(pts[-1] + gaps[-1]),
            base,
            origin,
            8,
            8,
            True,
            None,
        )
        times = [info.time(k) for k in range(info.frames + 1)]
        assert times == sorted(times)
        assert info.frame_range() == (0, info.frames)
        assume(min(np.diff(times)) > 1e-3)
        place = cut % info.frames
        # A frame's own time begins with it, and what ends there ends before it.
        assert info.frame_range(times[place], None) == (place, info.frames - place)
        if place:
            assert info.frame_range(None, times[place]) == (0, place)
        assert info.frame_range(times[place], times[place + 1]) == (place, 1)
        for start, end in ((times[-1] + 1, None), (None, times[0] - 1)):
            with pytest.raises(CclError):
                info.frame_range(start, end)

    holds(
        "times: a frame's own time names it, both ways",
        check,
        long=1500,
        gaps=st.lists(st.integers(1, 5000), min_size=1, max_size=30),
        begin=st.integers(-(10**6), 10**6),
        base=st.sampled_from([Fraction(1, 25), Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 1000)]),
        origin=st.floats(-100, 100),
        cut=st.integers(0, 10**6),
    )


def test_crops_lie_inside(holds):
    def check(height, width, low, high, flat, tall, seed):
        clip = Clip(size=4, scale=sorted((low, high)), ratio=sorted((flat, tall)), flip=0.5)
        top, left, down, across = _random_crop(height, width, np.random.default_rng(seed), clip)
        assert 0 <= top < top + down <= height
        assert 0 <= left < left + across <= width
        if height * width <= 10_000:
            frames = torch.zeros(2, height, width, 3, dtype=torch.uint8)
            assert train_view(frames, np.random.default_rng(seed), clip).shape == (3, 2, 4, 4)
            assert eval_view(frames, clip).shape == (3, 2, 4, 4)

    share, ratio = st.floats(1e-4, 1), st.floats(0.05, 20)
    side = st.integers(1, 2000) | st.integers(1, 40)
    holds(
        "crops: inside, of any size and shape",
        check,
        long=1500,
        height=side,
        width=side,
        low=share,
        high=share,
        flat=ratio,
        tall=ratio,
        seed=st.integers(0, 99),
    )


# ---- metrics and search

STAMP = (1, 1)  # of files that nobody reads


def _found(seed, videos, classes, coarse):
    """Random scores or features, with ties where they are coarse, and rows that are not finite."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-2, 3, (videos, 5)).astype(float) if coarse else rng.normal(size=(videos, 5))
    values[rng.random(videos) < 0.15] = rng.choice([np.nan, np.inf, -np.inf])
    return torch.from_numpy(values.astype(np.float32)), torch.from_numpy(rng.integers(0, classes, videos))


FOUND = dict(
    seed=st.integers(0, 2**30), videos=st.integers(1, 40), classes=st.integers(2, 5), coarse=st.booleans()
)


def test_recognition_counts_as_one_would(holds):
    def check(**given_):
        scores, labels = _found(**given_)
        ours = recognition(scores, labels, [f"c{k}" for k in range(given_["classes"])])
        hits = {
            k: [_within(row, label, k) for row, label in zip(scores.tolist(), labels.tolist(), strict=True)]
            for k in (1, 5)
        }
        for k, name in ((1, "top1"), (5, "top5")):
            assert ours[name] == pytest.approx(100 * np.mean(hits[k]))
        by_class = [
            np.mean([hit for hit, own in zip(hits[1], labels.tolist(), strict=True) if own == label])
            for label in set(labels.tolist())
        ]
        assert ours["mean_class"] == pytest.approx(100 * np.mean(by_class))

    holds("recognition against counting", check, **FOUND)


def _within(row: list[float], label: int, k: int) -> bool:
    order = sorted(range(len(row)), key=lambda place: (-row[place], place))
    return all(map(math.isfinite, row)) and label in order[:k]


def test_retrieval_counts_as_one_would(holds):
    def check(at_once, items, **given_):
        queries, wanted = _found(**given_)
        gallery, labels = _found(given_["seed"] + 1, items, given_["classes"], given_["coarse"])
        ours = retrieval(queries.clone(), wanted, gallery.clone(), labels, scores_at_once=at_once)
        unit, kept = directions(gallery.clone())
        sums = np.zeros(4)
        for row, label in zip(queries, wanted.tolist(), strict=True):
            if not row.isfinite().all() or not len(unit):
                continue
            scores = (unit.numpy() @ directions(row[None].clone())[0][0].numpy()).tolist()
            relevant = (labels[kept] == label).tolist()
            order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
            sums += [
                *(any(relevant[place] for place in order[:k]) for k in (1, 5, 10)),
                plain.average_precision(scores, relevant),
            ]
        for name, value in zip(("r1", "r5", "r10", "map"), 100 * sums / len(queries), strict=True):
            # Products in another order round otherwise: coarse scores tie in one of them alone.
            assert given_["coarse"] or ours[name] == pytest.approx(value, abs=1e-6)
            assert 0 <= ours[name] <= 100

    more = dict(at_once=st.sampled_from([1, 7, 100, 2**26]), items=st.integers(1, 40))
    holds("retrieval against sorting, in blocks of any size", check, **more, **FOUND)


def test_search_in_blocks_finds_what_sorting_finds(holds, tmp_path, monkeypatch):
    def check(seed, videos, queries, top, block, at_once):
        monkeypatch.setattr("ccl_cli.search.store._ROWS", block)
        monkeypatch.setattr(query, "_SCORES_AT_ONCE", at_once)
        rng = np.random.default_rng(seed)
        unit, _ = directions(torch.from_numpy(rng.normal(size=(videos, 4)).astype(np.float32)))
        asked, _ = directions(torch.from_numpy(rng.normal(size=(queries, 4)).astype(np.float32)))
        with open_library(tmp_path, write=True) as library:
            library.drop(list(library.known()))
            for place, vector in enumerate(unit.numpy()):
                library.put(f"/v/{place}", STAMP, 1, vector)
            cosines, numbers = query.nearest(library, asked, min(top, videos))
            paths = library.paths(numbers.ravel().tolist())
        scores = asked.double() @ unit.double().T
        for row, found, place in zip(scores, cosines, numbers, strict=True):
            assert found.tolist() == pytest.approx(sorted(row.tolist(), reverse=True)[: len(found)], abs=1e-6)
            assert len({*place.tolist()}) == len(place)
            assert [row[int(Path(paths[number]).name)].item() for number in place] == pytest.approx(
                found.tolist(), abs=1e-6
            )

    create(tmp_path, model=tmp_path / "m", fingerprint="f", dim=4)
    sizes = dict(videos=st.integers(1, 150), queries=st.integers(1, 6), top=st.integers(1, 12))
    sizes |= dict(block=st.integers(1, 200), at_once=st.sampled_from([1, 50, 2**22]))
    holds("search in blocks against sorting", check, quick=5, long=60, seed=st.integers(0, 2**30), **sizes)
