"""Numbers that are not finite, and data that has next to nothing to learn from."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccl_cli.__main__ import main
from ccl_cli.config.load import to_yaml
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.errors import CclError, DataError, RecipeError
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.train import train
from tests.helpers.plugin_folder import install
from tests.reliability.processes import in_two_processes, seeds
from tests.training.runs import lines, recipe

METHODS = [
    "ccl", "baseline", "kd", "fitnet", "pkt", "rkd", "cckd", "crd", "cmc", "ifd",
    "queue_kl", "unic", "mnf_csc",
]  # fmt: skip
SMALL = {"clip": {"frames": 4, "size": 32, "short_side": 48}, "optim": {"lr": 1e-4}}


def check_json(folder: Path) -> None:
    """Fail if a run's records hold a NaN, which JSON does not know."""
    for path in (*folder.rglob("*.json"), *folder.rglob("*.jsonl")):
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text, parse_constant=pytest.fail)


def state(run: Path, step: int) -> dict:
    return torch.load(run / "state" / f"step-{step:09d}.pt", weights_only=True)


def check_same(one: dict, other: dict) -> None:
    """Fail unless two checkpoints have the same weights, statistics and banks."""
    for name, value in one["distiller"].items():
        torch.testing.assert_close(value, other["distiller"][name], rtol=0, atol=0, equal_nan=True)


# ---- data that has next to nothing to learn from


def part(folder: Path, clips: Path, keep) -> str:
    """A data set of links to some of the clips; ``keep(split, class, number)`` says where, or nothing."""
    for path in sorted((clips / "set").rglob("*.mp4")):
        for new in keep(*path.relative_to(clips / "set").with_suffix("").parts) or ():
            link = folder / f"{new}.mp4"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return f"folder:{folder}"


def black(folder: Path) -> str:
    write_clip(folder / "one.mp4", np.zeros((12, 48, 48, 3), np.uint8), 25, np.zeros(16000, np.float32))
    for split, name, number in product(("train", "test"), ("down", "right"), range(4)):
        link = folder / "set" / split / name / f"{number}.mp4"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder / "one.mp4")
    return f"folder:{folder / 'set'}"


def table(path: Path, clips: Path, change) -> str:
    """The image teacher's table with changed embeddings, [N, 12]."""
    with np.load(clips / "image.npz") as file:
        names, embedding = list(file["names"]), change(file["embedding"].copy(), list(file["names"]))
    np.savez(path, names=names, embedding=embedding)
    return f"image:precomputed@{path}"


SOUND = "audio:small?weights=random"
SETS = {
    "one class": lambda p, c: {"data": part(p / "d", c, lambda s, k, n: [f"{s}/{k}/{n}"] * (k == "down"))},
    "one video per class": lambda p, c: {
        "data": part(p / "d", c, lambda s, k, n: [f"{s}/{k}/{n}"] * (s == "test" or n == "2"))
    },
    "one video many times, none with sound": lambda p, c: {
        "data": part(p / "d", c, lambda s, k, n: [f"{s}/{k}/{n}-{copy}" for copy in range(4)] * (n == "0")),
        "teachers": [SOUND],
    },
    "black": lambda p, c: {"data": black(p), "teachers": [SOUND, "image:small?weights=random"]},
    "equal embeddings": lambda p, c: {"teachers": [table(p / "t.npz", c, lambda e, n: 0 * e + 0.5)]},
    "zero embeddings": lambda p, c: {"teachers": [table(p / "t.npz", c, lambda e, n: 0 * e)]},
    "batches of one": lambda p, c: {"train": {"batch_size": 1}},
    "classes in test that training lacks": lambda p, c: {
        "data": part(p / "d", c, lambda s, k, n: [f"{s}/{'new' if s == 'test' else ''}{k}/{n}"])
    },
}
# Every change tries each set of data with one method; all methods are tried on all of them in the long part.
CASES = [
    pytest.param(name, method, marks=() if number == place else pytest.mark.long)
    for (place, name), (number, method) in product(enumerate(SETS), enumerate(METHODS))
]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_run_on_degenerate_data_ends_with_figures_and_a_report(
    clips_folder, tmp_path, capsys, name, method
):
    changes = SETS[name](tmp_path, clips_folder)
    changes["train"] = {"batch_size": 4, "epochs": 1} | changes.get("train", {})
    run = train(recipe(clips_folder, **SMALL, method=method, **changes))
    figures = evaluate(run)
    found = [figures["recognition"][key] for key in ("top1", "top5", "mean_class")]
    found += figures["retrieval"].values()
    assert all(0 <= value <= 100 + 1e-9 for value in found), found
    assert all(math.isfinite(line["loss"]) for line in lines(run))
    assert json.loads((run / "summary.json").read_text())["skipped"] == 0
    check_json(run)
    assert main(["report", "table", str(run)]) == 0
    assert not {"nan", "inf", "-inf", "nan%"} & set(capsys.readouterr().out.lower().split())


@pytest.mark.parametrize("gone", ["train", "test"])
def test_an_empty_split_is_a_sentence(clips_folder, tmp_path, gone):
    data = part(tmp_path / "d", clips_folder, lambda s, k, n: [f"{s}/{k}/{n}"] * (s != gone))
    with pytest.raises(DataError, match=f"no (videos in|{gone} split|videos in its {gone} split)"):
        evaluate(train(recipe(clips_folder, data=data, **SMALL, method="baseline", train={"max_steps": 1})))


def test_one_value_per_channel_is_a_sentence(clips_folder):
    clip = {"frames": 1, "size": 16, "short_side": 16}
    with pytest.raises(RecipeError, match="one value per channel"):
        train(recipe(clips_folder, clip=clip, method="baseline", train={"batch_size": 1}))


# ---- steps that are not finite


def one_huge(path: Path, clips: Path, video: str, value: float) -> str:
    def change(embedding, names):
        embedding[names.index(video)] = value
        return embedding

    return table(path, clips, change)


# At such an embedding the loss of the first is infinite, and the codes of the others.
OVERFLOWS = {"fitnet": 1e30, "crd": 3e38, "cmc": 3e38, "ccl+fitnet": 1e30, "crd+fitnet": 1e30}


@pytest.mark.filterwarnings("ignore:overflow")
@seeds(1, 20)
def test_a_step_that_is_not_finite_changes_nothing_and_resuming_is_exact(clips_folder, tmp_path, seed):
    method = list(OVERFLOWS)[seed % len(OVERFLOWS)]
    video = f"train/{('down', 'right')[seed % 2]}/{seed % 6}"
    teacher = one_huge(tmp_path / "t.npz", clips_folder, video, OVERFLOWS[method])
    changes = {"teachers": [teacher], "method": method, **SMALL}

    def run(steps: int, **more) -> Path:
        limits = {"batch_size": 4, "epochs": 2, "seed": seed, "checkpoint_every": 1, "max_steps": steps}
        return train(recipe(clips_folder, **changes, train=limits), **more)

    whole = run(0)
    skips = [line["step"] for line in lines(whole) if "loss" not in line]
    assert len(skips) == 2  # the video's batch, in each of two epochs of three steps
    assert [line["skipped"] for line in lines(whole)] == [
        sum(skip <= step for skip in skips) for step in range(1, 7)
    ]
    assert json.loads((whole / "summary.json").read_text())["skipped"] == 2
    assert all(value.isfinite().all() for value in load_file(whole / "model.safetensors").values())
    check_json(whole)
    stopped = run(skips[1] - 1)
    before = state(stopped, skips[1] - 1)
    run(skips[1], resume=stopped)
    after = state(stopped, skips[1])
    check_same(before, after)
    assert after["skipped"]["total"] == 2
    if skips[1] < 6:
        run(0, resume=stopped)
    assert lines(stopped) == lines(whole)
    check_same(state(stopped, 6), state(whole, 6))


@seeds(2, 12)
def test_a_run_that_gets_nowhere_stops_with_its_state_and_names_the_batch(clips_folder, tmp_path, seed):
    # A rate that throws the weights away, or embeddings that no loss can hold.
    lr, shift = ((1e30, 0.0), (1e-4, 1e30))[seed % 2]
    teacher = table(tmp_path / "t.npz", clips_folder, lambda e, n: e + shift)
    changes = {"teachers": [teacher], "method": "fitnet", **SMALL, "optim": {"lr": lr}}
    limit = 1 + seed % 4
    changes["train"] = {"batch_size": 2, "max_skipped": limit, "seed": seed}
    run, last = tmp_path / "run", limit + (lr > 1)
    with pytest.raises(CclError, match=f"not finite in {limit} steps in a row") as caught:
        train(recipe(clips_folder, **changes), output=run)
    names = caught.value.message.rpartition("whose batch was ")[2].rstrip(".").split(", ")
    assert [name.partition("/")[0] for name in names] == ["train", "train"]
    saved = state(run, last)
    assert saved["skipped"] == {"total": limit, "in_a_row": limit}
    weights = [value for name, value in saved["distiller"].items() if name.startswith("student.")]
    assert all(value.isfinite().all() for value in weights)
    assert not (run / "model.safetensors").exists()
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


@seeds(1, 12)
def test_a_live_teacher_that_makes_nan_trains_as_its_cache_does(clips_folder, odd_plugins, caplog, seed):
    changes = {"teachers": [f"word:moody?share={60 + 5 * seed}"], "method": METHODS[2:][seed % 9], **SMALL}
    changes["train"] = {"batch_size": 4, "epochs": 1, "seed": seed}
    runs = [train(recipe(clips_folder, **changes, cache={"use": use})) for use in ("off", "build")]
    live, cached = (load_file(run / "model.safetensors") for run in runs)
    assert all(torch.equal(value, cached[name]) for name, value in live.items())
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    bad = summaries[0]["data"]["not_finite"].get("word:moody", [])
    assert len(bad) == summaries[1]["data"]["modalities"]["word:moody"].get("unreadable", 0)
    assert bad or seed  # the first seed has such videos
    assert bool(bad) == ("returns non-finite embeddings" in caplog.text)
    assert summaries[0]["skipped"] == 0


def scale_by(monkeypatch, scale: float) -> None:
    """Train as fp16 does on a GPU: with torch's own scaler, whose scale is too high for single precision too."""

    def with_scaler(*arguments):
        accelerator = set_up(*arguments)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return accelerator

    monkeypatch.setattr("ccl_cli.training.train.set_up", with_scaler)


def test_an_overflow_of_the_scaler_changes_nothing_and_is_no_bad_loss(clips_folder, monkeypatch):
    scale_by(monkeypatch, 2.0**127)
    limits = {"batch_size": 2, "checkpoint_every": 1, "max_steps": 2, "max_skipped": 1}
    run = train(recipe(clips_folder, method="crd", ce_weight=8.0, **SMALL, train=limits))
    first, second = state(run, 1), state(run, 2)
    assert second["scaler"]["scale"] == 2.0**125  # both steps have overflowed
    assert second["skipped"]["total"] == 0
    check_same(first, second)


def test_a_gradient_that_no_scale_mends_is_one(clips_folder, odd_plugins, monkeypatch):
    scale_by(monkeypatch, 4.0)
    with pytest.raises(CclError, match="not finite in 2 steps in a row, up to step"):
        train(recipe(clips_folder, method="root", **SMALL, train={"batch_size": 2, "max_skipped": 2}))


@pytest.mark.slow
@seeds(1, 4)
def test_two_processes_skip_the_same_steps_together(clips_folder, tmp_path, monkeypatch, seed):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    video = f"train/{('down', 'right')[seed % 2]}/{seed}"  # in the rows of one process only
    teacher = one_huge(tmp_path / "t.npz", clips_folder, video, 1e30)
    changes = {"teachers": [teacher], "method": "fitnet", **SMALL}
    changes["train"] = {"batch_size": 4, "epochs": 2, "log_every": 1, "seed": seed}
    alone, together = train(recipe(clips_folder, **changes)), tmp_path / "two"
    (tmp_path / "r.yaml").write_text(to_yaml(recipe(clips_folder, **changes)))
    in_two_processes(tmp_path, "train", "--recipe", "r.yaml", "--output", together)
    one, two = ([("loss" in line, line["skipped"]) for line in lines(run)] for run in (alone, together))
    assert one == two
    assert two[-1][1] == 2
