"""Numbers that are not finite, and data that has next to nothing to learn from."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import nn

from ccl_cli.__main__ import main
from ccl_cli.config.load import to_yaml
from ccl_cli.data.clips.batch import Batch
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import CclError, DataError, RecipeError
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.evaluation.metrics import recognition, retrieval
from ccl_cli.methods import Setting, TeacherInfo
from ccl_cli.methods.losses import cross_entropy
from ccl_cli.students import StudentOutput
from ccl_cli.teachers import Embedding
from ccl_cli.training import trainer
from ccl_cli.training.build import load_method
from ccl_cli.training.train import train
from ccl_cli.utils.distributed import masked_mean
from tests.plugin_folder import install
from tests.training.test_training import ended, lines, recipe, start
from tests.utils.test_distributed import VARIANTS

METHODS = ["baseline", "ccl", "kd", "fitnet", "pkt", "rkd", "cckd", "crd", "cmc", "ifd"]
SMALL = {"clip": {"frames": 4, "size": 32, "short_side": 48}, "optim": {"lr": 1e-4}}


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def check_json(folder: Path) -> None:
    """Every line of JSON in a run's folder is JSON, which knows no NaN."""
    for path in [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]:
        texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        for text in texts:
            json.loads(text, parse_constant=refuse)


def state(run: Path, step: int) -> dict:
    return torch.load(run / "state" / f"step-{step:09d}.pt", weights_only=True)


def same(one: object, other: object) -> bool:
    if torch.is_tensor(one):
        return torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


# ---- methods on batches of nothing but random numbers


ROWS, DIMS, CLASSES, VIDEOS = 6, (8, 5), 3, 9
BATCHES = [
    "ordinary", "one class", "one row", "no teacher anywhere", "one teacher nowhere", "equal embeddings",
    "zero embeddings", "equal students", "zero students", "one video repeated", "tiny", "huge", "opposite",
]  # fmt: skip


class Small(nn.Module):
    """A linear student and a method, as one module."""

    def __init__(self, name: str, options: dict, labels: torch.Tensor, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        infos = tuple(TeacherInfo(f"x:t{number}", "x", dim) for number, dim in enumerate(DIMS))
        self.trunk, self.classifier = nn.Linear(4, DIMS[0]), nn.Linear(DIMS[0], CLASSES)
        self.method = load_method(name, options, Setting(DIMS[0], CLASSES, labels, infos, 10))

    def forward(self, x, teachers, rows, labels):
        feature = self.trunk(x).relu()
        stages = tuple(value[:, :, None, None, None] for value in (feature[:, :3], feature))
        student = StudentOutput(feature, self.classifier(feature), stages)
        batch = Batch(torch.empty(0), labels, rows, {}, 0)
        ce = masked_mean(cross_entropy(student.logits, labels), torch.ones_like(labels, dtype=torch.bool))
        return ce + sum(self.method(student, teachers, batch).values())


def degenerate(case: str, seed: int):
    """x [B, 4], teachers, rows and labels [B], labels of all videos."""
    generator = torch.Generator().manual_seed(seed)
    count = 1 if case == "one row" else ROWS
    x = torch.randn(count, 4, generator=generator)
    values = [torch.rand(count, dim, generator=generator) for dim in DIMS]
    present = torch.rand(len(DIMS), count, generator=generator) < 0.8
    rows = torch.randperm(VIDEOS, generator=generator)[:count]
    labels = torch.zeros(VIDEOS, dtype=torch.long) if case == "one class" else torch.arange(VIDEOS) % CLASSES
    if case == "no teacher anywhere":
        present[:] = False
    elif case == "one teacher nowhere":
        present[0] = False
    elif case == "equal embeddings":
        values = [value[:1].expand_as(value).clone() for value in values]
    elif case == "zero embeddings":
        values = [torch.zeros_like(value) for value in values]
    elif case == "equal students":
        x = x[:1].expand_as(x).clone()
    elif case == "zero students":
        x = torch.zeros_like(x)
    elif case == "one video repeated":
        x, rows = x[:1].expand_as(x).clone(), rows[:1].expand_as(rows).clone()
        values = [value[:1].expand_as(value).clone() for value in values]
    elif case in ("tiny", "huge"):
        values = [value * (1e-30 if case == "tiny" else 1e6) for value in values]
    elif case == "opposite":
        values = [torch.cat([value[: count // 2], -value[: count - count // 2]]) for value in values]
    teachers = {
        f"x:t{number}": Embedding(torch.where(there[:, None], value, 0.0), there)
        for number, (value, there) in enumerate(zip(values, present, strict=True))
    }
    return x, teachers, rows, labels[rows], labels


def test_every_method_gives_finite_losses_and_gradients_on_degenerate_batches(tally, trials):
    every = list(product(range(40), BATCHES, VARIANTS))
    for number in trials(30, len(every)):
        seed, case, variant = every[number * 97 % len(every)]
        name, options = VARIANTS[variant]
        with tally.trial("methods on degenerate batches: two finite steps", (seed, variant, case)):
            *given, labels = degenerate(case, seed)
            module = Small(name, options, labels, seed)
            for _ in range(2):  # in the second one memory banks hold what the first has put there
                loss = module(*given)
                learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
                gradients = torch.autograd.grad(loss, learning, allow_unused=True)
                assert loss.isfinite(), f"loss {loss}"
                assert all(each.isfinite().all() for each in gradients if each is not None)


# ---- whole runs on degenerate data


def part(folder: Path, clips: Path, keep) -> str:
    """A data set of links to some of the clips; ``keep(split, class, number)`` says where, or nothing."""
    for path in sorted((clips / "set").rglob("*.mp4")):
        for new in keep(*path.relative_to(clips / "set").with_suffix("").parts) or ():
            link = folder / f"{new}.mp4"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return f"folder:{folder}"


def constant(folder: Path, value: int) -> str:
    frames = np.full((12, 48, 48, 3), value, np.uint8)
    write_clip(folder / "one.mp4", frames, 25, np.zeros(16000, np.float32))
    for split, name, number in product(("train", "test"), ("down", "right"), range(4)):
        link = folder / "set" / split / name / f"{number}.mp4"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder / "one.mp4")
    return f"folder:{folder / 'set'}"


def table(path: Path, clips: Path, change) -> str:
    """The image teacher's table with changed embeddings, [N, 12]."""
    with np.load(clips / "image.npz") as kept:
        names, embedding = list(kept["names"]), change(kept["embedding"].copy(), list(kept["names"]))
    np.savez(path, names=names, embedding=embedding)
    return f"image:precomputed@{path}"


SOUND = "audio:small?weights=random"
SETS = {
    "one class": lambda p, c: {"data": part(p / "d", c, lambda s, k, n: [f"{s}/{k}/{n}"] * (k == "down"))},
    "a class with one video": lambda p, c: {
        "data": part(p / "d", c, lambda s, k, n: [f"{s}/{k}/{n}"] * (s == "test" or k == "down" or n == "2"))
    },
    "one video per class": lambda p, c: {
        "data": part(p / "d", c, lambda s, k, n: [f"{s}/{k}/{n}"] * (s == "test" or n == "2"))
    },
    "one video many times, none with sound": lambda p, c: {
        "data": part(
            p / "d", c, lambda s, k, n: [f"{s}/{k}/{n}-{copy}" for copy in range(4)] * (s == "test" or n == "0")
        ),
        "teachers": [SOUND],
    },
    "black": lambda p, c: {"data": constant(p, 0), "teachers": [SOUND, "image:small?weights=random"]},
    "white": lambda p, c: {"data": constant(p, 255), "teachers": [SOUND, "image:small?weights=random"]},
    "equal embeddings": lambda p, c: {"teachers": [table(p / "t.npz", c, lambda e, n: 0 * e + 0.5)]},
    "zero embeddings": lambda p, c: {"teachers": [table(p / "t.npz", c, lambda e, n: 0 * e)]},
    "batches of one": lambda p, c: {"train": {"batch_size": 1}},
    "classes in test that training lacks": lambda p, c: {
        "data": part(p / "d", c, lambda s, k, n: [f"{s}/{'new' if s == 'test' else ''}{k}/{n}"])
    },
}  # fmt: skip
RUNS = list(product(SETS, METHODS))
np.random.default_rng(0).shuffle(RUNS)


def test_whole_runs_on_degenerate_data_end_with_figures(tally, trials, clips_folder, tmp_path):
    for number in trials(1, len(RUNS)):
        name, method = RUNS[number]
        with tally.trial("tiny runs on degenerate data, to the end and evaluated", (str(name), str(method))):
            folder = tmp_path / str(number)
            folder.mkdir()
            changes = SETS[name](folder, clips_folder)
            changes["train"] = {"batch_size": 4, "max_steps": 3, "log_every": 1} | changes.get("train", {})
            run = train(recipe(clips_folder, **SMALL, method=method, **changes))
            figures = evaluate(run)
            found = [figures["recognition"][key] for key in ("top1", "top5", "mean_class")]
            found += figures["retrieval"].values()
            assert all(0 <= value <= 100 + 1e-9 for value in found), found
            assert all(math.isfinite(line["loss"]) for line in lines(run))
            assert json.loads((run / "summary.json").read_text())["skipped"] == 0
            check_json(run)


@pytest.mark.slow
@pytest.mark.long
def test_reports_of_degenerate_runs_hold_no_nan(tally, clips_folder, tmp_path, capsys):
    for name in SETS:
        with tally.trial("tables and pages of such runs, without a NaN", name):
            folder = tmp_path / name.replace(" ", "-")
            folder.mkdir()
            run = train(recipe(clips_folder, **SMALL, method="baseline", **SETS[name](folder, clips_folder)))
            evaluate(run)
            page = folder / "page.html"
            for command in (["table", run], ["table", run, "--paper"], ["html", run, "--output", page]):
                assert main(["report", *map(str, command)]) == 0
            out = capsys.readouterr().out + page.read_text()
            words = (
                out.replace("<", " ").replace(">", " ").replace('"', " ").replace(",", " ").lower().split()
            )
            assert not {"nan", "inf", "-inf", "nan%"} & set(words)


def test_splits_that_are_empty_are_a_sentence(tally, clips_folder, tmp_path):
    lacking = {
        split: part(
            tmp_path / split, clips_folder, lambda s, k, n, gone=split: [f"{s}/{k}/{n}"] * (s != gone)
        )
        for split in ("train", "test")
    }
    with (
        tally.trial("empty splits, as one sentence", "train"),
        pytest.raises(DataError, match="no videos in"),
    ):
        train(recipe(clips_folder, data=lacking["train"], **SMALL))
    run = train(recipe(clips_folder, **SMALL, method="baseline", train={"max_steps": 1}))
    for split, data in (("test", lacking["test"]), ("val", None)):
        with (
            tally.trial("empty splits, as one sentence", split),
            pytest.raises(DataError, match=f"no (videos in its )?{split} split"),
        ):
            evaluate(run, data=data, split=split)
    clip = {"frames": 1, "size": 16, "short_side": 16}
    with (
        tally.trial("one value per channel, as one sentence"),
        pytest.raises(RecipeError, match="one value per channel"),
    ):
        train(recipe(clips_folder, clip=clip, method="baseline", train={"batch_size": 1}))


# ---- figures


def plain_retrieval(queries, asked, gallery, labels) -> dict[str, float]:
    """By sorting all of it."""
    found = gallery.isfinite().all(dim=1)
    totals = np.zeros(4)
    for query, label in zip(queries, asked, strict=True):
        length = (gallery[found].double().norm(dim=1) * query.double().norm()).clamp(min=1e-12)
        order = (gallery[found].double() @ query.double() / length).argsort(descending=True, stable=True)
        places = np.flatnonzero((labels[found][order] == label).numpy()) + 1
        if len(places) and query.isfinite().all():
            totals += [*(places[0] <= k for k in (1, 5, 10)), np.mean(np.arange(1, len(places) + 1) / places)]
    return dict(zip(("r1", "r5", "r10", "map"), (100 * totals / len(queries)).tolist(), strict=True))


def test_figures_of_odd_features_are_those_of_sorting(tally, trials):
    what = "figures of features that are zero, equal or not finite, and of absent classes: as by sorting"
    for seed in trials(15, 3000):
        with tally.trial(what, seed):
            generator = torch.Generator().manual_seed(seed)
            rng = np.random.default_rng(seed)
            queries, gallery = (torch.randn(rng.integers(1, 30), 9, generator=generator) for _ in range(2))
            if seed % 3 == 0:
                queries[0] = (0.0, math.nan, math.inf)[seed % 9 // 3]
                gallery[-1] = (math.nan, math.inf, math.nan)[seed % 9 // 3]
            if seed % 5 == 0:
                gallery[: len(gallery) // 2] = gallery[0].clone()
            asked, labels = (torch.from_numpy(rng.integers(0, 4, len(x))) for x in (queries, gallery))
            if seed % 5 == 0:  # which of two equal ones comes first is a matter of rounding
                labels[: len(gallery) // 2] = labels[0].clone()
            figures = retrieval(queries, asked, gallery, labels)
            assert figures == pytest.approx(plain_retrieval(queries, asked, gallery, labels), abs=1e-9)
            scores = torch.rand(len(queries), 5, generator=generator)
            scores[0] = math.nan
            seen = recognition(scores, asked, ["a", "b", "c", "d", "e"])
            right = (scores.argmax(dim=1) == asked) & scores.isfinite().all(dim=1)
            assert seen["top1"] == pytest.approx(100 * right.double().mean().item())
            assert "e" not in seen["per_class"]
            json.dumps([seen, figures], allow_nan=False)


# ---- tables of embeddings


def test_tables_with_numbers_that_are_not_finite_are_refused_by_name(tally, trials, clips_folder, tmp_path):
    with np.load(clips_folder / "image.npz") as kept:
        names, rows = [str(name) for name in kept["names"]], kept["embedding"]
    for seed in trials(6, 300):
        rng = np.random.default_rng(seed)
        bad = [names[row] for row in rng.choice(len(names), rng.integers(1, 4), replace=False)]
        value = (np.nan, np.inf, -np.inf, 1e300)[seed % 4]  # the last one is too large for single precision
        embedding = rows.astype(np.float64)
        for name in bad:
            embedding[names.index(name), rng.integers(rows.shape[1])] = value
        kind = ("npz", "safetensors", "folder")[seed % 3]
        path = write_table(tmp_path / f"table{seed}", kind, names, embedding)
        with tally.trial("tables with NaN or infinity, refused with the ids", (seed, kind, value)):
            with pytest.raises(DataError, match="not finite") as caught:
                train(recipe(clips_folder, teachers=[f"image:precomputed@{path}"], **SMALL))
            assert all(name in caught.value.message for name in bad), caught.value.message


def write_table(path: Path, kind: str, names: list[str], embedding: np.ndarray) -> Path:
    if kind == "folder":
        for name, row in zip(names, embedding, strict=True):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(path / f"{name}.npy", row)
        return path
    path = path.with_suffix(f".{kind}")
    if kind == "npz":
        np.savez(path, names=names, embedding=embedding)
    else:
        save_file(dict(zip(names, embedding, strict=True)), path)
    return path


# ---- steps that are not finite


def one_huge(path: Path, clips: Path, video: str, value: float) -> str:
    def change(embedding, names):
        embedding[names.index(video)] = value
        return embedding

    return table(path, clips, change)


# At such an embedding the loss of the first is infinite, and the codes of the others.
BURST = {"fitnet": 1e30, "crd": 3e38, "cmc": 3e38, "ccl+fitnet": 1e30, "crd+fitnet": 1e30}


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_step_that_is_not_finite_changes_nothing_and_resuming_is_exact(
    tally, trials, clips_folder, tmp_path
):
    kept = "skipped steps: nothing changed, counter, weights finite"
    resumed = "runs with skipped steps, stopped and resumed: bit-equal"
    for number in trials(1, 40):
        rng = np.random.default_rng(number)
        method = list(BURST)[number % len(BURST)]
        video = f"train/{('down', 'right')[number % 2]}/{rng.integers(6)}"
        teacher = one_huge(tmp_path / f"{number}.npz", clips_folder, video, BURST[method])
        changes = {"teachers": [teacher], "method": method, **SMALL}
        changes["train"] = {"batch_size": 4, "epochs": 2, "log_every": 1, "seed": number}
        whole = train(recipe(clips_folder, **changes))
        skips = [line["step"] for line in lines(whole) if "loss" not in line]
        with tally.trial(kept, (number, method)):
            assert len(skips) == 2  # the video's batch, in each of two epochs of three steps
            counted = [line["skipped"] for line in lines(whole)]
            assert counted == [sum(skip <= step for skip in skips) for step in range(1, 7)]
            assert json.loads((whole / "summary.json").read_text())["skipped"] == 2
            assert all(value.isfinite().all() for value in load_file(whole / "model.safetensors").values())
            check_json(whole)
        until = {**changes, "train": {**changes["train"], "max_steps": max(skips[0] - 1, 1)}}
        with tally.trial(resumed, (number, method)):
            parts = train(recipe(clips_folder, **until))
            before = state(parts, until["train"]["max_steps"])
            until["train"]["max_steps"] = skips[0] if skips[0] > 1 else 2
            train(recipe(clips_folder, **until), resume=parts)
            after = state(parts, until["train"]["max_steps"])
            if skips[0] > 1:
                tensors = [
                    {k: v for k, v in each["distiller"].items() if torch.is_tensor(v)}
                    for each in (before, after)
                ]
                assert same(*tensors)
                assert same(before["optimizer"]["state"], after["optimizer"]["state"])
                assert after["skipped"] == {"total": 1, "in_a_row": 1}
            train(recipe(clips_folder, **changes), resume=parts)
            assert lines(parts) == lines(whole)
            assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_run_that_gets_nowhere_stops_with_its_state_and_names_the_batch(
    tally, trials, clips_folder, tmp_path
):
    what = "runs without a finite loss: stopped, state kept, batch named, resumable"
    for number in trials(1, 30):
        with tally.trial(what, number):
            # A rate that throws the weights away, or embeddings that no loss can hold.
            lr, shift = ((1e30, 0.0), (1e-4, 1e30))[number % 2]
            teacher = table(tmp_path / f"{number}.npz", clips_folder, lambda e, n, shift=shift: e + shift)
            changes = {"teachers": [teacher], "method": "fitnet", **SMALL, "optim": {"lr": lr}}
            limit = 1 + number % 4
            changes["train"] = {"batch_size": 2, "log_every": 1, "max_skipped": limit, "seed": number}
            with pytest.raises(CclError, match=f"not finite in {limit} steps in a row") as caught:
                train(recipe(clips_folder, **changes), output=tmp_path / f"run{number}")
            run, last = tmp_path / f"run{number}", limit + (lr > 1)
            names = caught.value.message.rpartition("whose batch was ")[2].rstrip(".").split(", ")
            assert len(names) == 2
            assert all(name.startswith("train/") for name in names)
            kept = state(run, last)
            assert kept["skipped"] == {"total": limit, "in_a_row": limit}
            assert all(
                value.isfinite().all()
                for name, value in kept["distiller"].items()
                if name.startswith("student.")
            )
            assert not (run / "model.safetensors").exists()
            assert [line["skipped"] for line in lines(run)][-1] == limit
            check_json(run)
            with pytest.raises(CclError, match=f"{limit + 1} steps in a row, up to step {last + 1},"):
                train(recipe(clips_folder, **changes), resume=run)


SOURCE = """
import hashlib
import torch
from dataclasses import dataclass
from ccl_cli.methods import Method
from ccl_cli.teachers import Teacher


@dataclass(frozen=True)
class Number:
    share: int
    shape, dtype, views = (2,), torch.int64, "track"

    def __call__(self, window):
        digest = hashlib.sha256(window.video.id.encode()).digest()
        return torch.tensor([digest[0], 256 if digest[1] < self.share else 0])


class Moody(Teacher):
    modality, dim = "word", 6

    @classmethod
    def from_spec(cls, spec):
        teacher = cls()
        teacher.preprocess = Number(int(spec.options["share"]))
        return teacher.freeze()

    def forward(self, x):
        value = torch.nn.functional.one_hot(x[:, 0] % 6, 6).float()
        return value + torch.where(x[:, 1] > 0, torch.nan, 0.0)[:, None]


class Root(Method):
    uses_teachers = False

    def forward(self, student, teachers, batch):
        return {"root": (0 * student.feature).sum().sqrt()}  # finite, its gradient is not
"""


@pytest.fixture
def odd_plugins(tmp_path, monkeypatch):
    site = tmp_path / "site"
    entries = "[ccl.teachers]\nword.moody = odd:Moody\n[ccl.methods]\nroot = odd:Root\n"
    install(site, "odd", entries, modules={"odd": SOURCE})
    monkeypatch.syspath_prepend(str(site))


def test_a_live_teacher_that_makes_nan_trains_as_its_cache_does(
    tally, trials, clips_folder, odd_plugins, caplog
):
    what = "live teachers with NaN for some videos: as from a cache, ids in the summary"
    for number in trials(1, 30):
        share = 60 + 5 * (number % 20)
        method = METHODS[1:][number % 9]
        changes = {"teachers": [f"word:moody?share={share}"], "method": method, **SMALL}
        changes["train"] = {"batch_size": 4, "epochs": 1, "seed": number}
        with tally.trial(what, (number, method)):
            caplog.clear()
            runs = [train(recipe(clips_folder, **changes, cache={"use": use})) for use in ("off", "build")]
            live, cached = (load_file(run / "model.safetensors") for run in runs)
            assert all(torch.equal(value, cached[name]) for name, value in live.items())
            summary = json.loads((runs[0] / "summary.json").read_text())
            bad = summary["data"]["not_finite"].get("word:moody", [])
            modality = json.loads((runs[1] / "summary.json").read_text())["data"]["modalities"]["word:moody"]
            assert len(bad) == modality.get("unreadable", 0)
            assert bad or number  # the first seed has such videos
            assert bool(bad) == ("makes numbers that are not finite" in caplog.text)
            assert summary["skipped"] == 0


def scaled(monkeypatch, scale: float) -> None:
    """Train as fp16 does on a GPU: with torch's own scaler, whose scale is too high for single precision too."""
    real = trainer.set_up

    def set_up(*given):
        accelerator = real(*given)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return accelerator

    monkeypatch.setattr(trainer, "set_up", set_up)


def test_an_overflow_of_the_scaler_is_no_bad_loss_but_a_bad_gradient_is(
    tally, trials, clips_folder, odd_plugins, monkeypatch
):
    for number in trials(1, 20):
        changes = {"method": METHODS[number % len(METHODS)], "ce_weight": 8.0, **SMALL}
        changes["train"] = {"batch_size": 2, "epochs": 1, "log_every": 1, "max_skipped": 1, "seed": number}
        with tally.trial("overflows of the scaler: not counted, trained in the end", number):
            scaled(monkeypatch, 2.0**127)
            run = train(recipe(clips_folder, **changes))
            kept = state(run, 6)
            assert kept["scaler"]["scale"] < 2.0**127
            assert kept["skipped"]["total"] == 0
            assert math.isfinite(lines(run)[-1]["loss"])
        with tally.trial("gradients that no scale mends: stopped", number):
            scaled(monkeypatch, 4.0)
            changes["train"]["max_skipped"] = 2
            with pytest.raises(CclError, match="not finite in 2 steps in a row, up to step 4"):
                train(recipe(clips_folder, **{**changes, "method": "root"}))


# ---- two processes


@pytest.mark.slow
def test_two_processes_skip_the_same_steps_together(tally, trials, clips_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for number in trials(1, 6):
        video = f"train/{('down', 'right')[number % 2]}/{number}"  # in the rows of one process only
        teacher = one_huge(tmp_path / f"{number}.npz", clips_folder, video, 1e30)
        changes = {"teachers": [teacher], "method": "fitnet", **SMALL}
        changes["train"] = {"batch_size": 4, "epochs": 2, "log_every": 1, "seed": number}
        alone = train(recipe(clips_folder, **changes))
        path = tmp_path / f"{number}.yaml"
        path.write_text(to_yaml(recipe(clips_folder, **changes)))
        command = ["--recipe", str(path), "--num-processes", "2", "--output"]
        with tally.trial("two processes: the same steps skipped, no deadlock", number):
            together = tmp_path / f"two{number}"
            ended(start([*command, str(together)]))
            one, two = (
                [("loss" in line, line["skipped"]) for line in lines(run)] for run in (alone, together)
            )
            assert one == two
            assert two[-1][1] == 2
        if number % 3 == 2:
            with tally.trial("two processes without a finite loss: one sentence, exit code 1", number):
                stopped = tmp_path / f"stopped{number}"
                _, said = ended(start([*command, str(stopped), "--lr", "1e30"]), 1)
                assert said.count("not finite in 3 steps in a row") == 1
                assert len(said.partition("whose batch was ")[2].partition(".")[0].split(", ")) == 4
                newest = max((stopped / "state").glob("step-*.pt"))  # a huge embedding may come first
                assert torch.load(newest, weights_only=True)["skipped"]["in_a_row"] == 3
