"""The same seed, the same result: whatever the number of processes that read, and of those that train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ccl_cli.bench.matrix import final_cells
from ccl_cli.bench.run import folder_of, run_bench
from ccl_cli.config.load import to_yaml
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.training.build import build
from ccl_cli.training.train import train
from tests.bench.test_run import recipe as bench_recipe
from tests.reliability.tally import full
from tests.training.test_training import ended, lines, recipe, start

METHODS = ["ccl", "baseline", "kd", "fitnet", "pkt", "rkd", "cckd", "crd", "cmc", "ifd"]
LIVE = ["audio:small?weights=random", "image:small?weights=random"]
SMALL = {"clip": {"frames": 4, "size": 32, "short_side": 48}, "optim": {"lr": 1e-3}}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def equal(one: Path, other: Path) -> bool:
    """Bit for bit: the models, and every line of the metrics that is no clock's."""
    first, second = weights(one), weights(other)
    return lines(one) == lines(other) and all(torch.equal(first[name], second[name]) for name in first)


# ---- one process


@pytest.fixture
def sources(clips_folder, tmp_path):
    """Changes to a recipe, by how the run comes by its videos and embeddings."""

    def changes(kind: str) -> dict:
        if kind == "packed":
            made = tmp_path / "packed"
            if not made.exists():
                source, settings = f"folder:{clips_folder / 'set'}", Settings(format="mp4", quality=16)
                pack(source, made, settings, workers=0, shard_size=300_000, max_unreadable=0.05)
            return {"data": f"shards:{made}", "teachers": LIVE}
        return {"teachers": LIVE, "cache": {"use": "build" if kind == "cached" else "off"}}

    return changes


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # four on two cores
def test_the_number_of_workers_changes_nothing(tally, trials, sources, clips_folder, tmp_path, monkeypatch):
    for number in trials(1, 12):
        method, kind = METHODS[number % 10], ("files", "packed", "cached")[number % 3]
        changes = {**SMALL, **sources(kind), "method": method}
        with tally.trial(f"workers 0, 1, 2, 4 ({kind}, sound and pictures): bit-equal", (method, number)):
            runs, sums = [], set()
            for workers in (0, 1, 2, 4) if full() else (0, 2):
                monkeypatch.setenv(
                    "CCL_HOME", str(tmp_path / f"home{number}-{workers}")
                )  # so a cache is built anew
                more = {
                    "batch_size": 5,
                    "epochs": 2,
                    "workers": workers,
                    "seed": number,
                }  # 12 videos: odd batches
                runs.append(train(recipe(clips_folder, **changes, train=more)))
                built = (tmp_path / f"home{number}-{workers}").rglob("cache.json")
                sums.add(tuple(sorted(json.loads(path.read_text())["sha256"] for path in built)))
            assert all(equal(one, other) for one, other in pairwise(runs))
            assert len(sums) == 1
            assert len(sums.pop()) == (2 if kind == "cached" and method != "baseline" else 0)


def test_the_same_seed_gives_the_same_run_and_another_one_another(tally, trials, clips_folder):
    for number in trials(1, 20):
        method, precision = METHODS[number % 10], ("fp32", "bf16")[number // 10]
        more = {"batch_size": 4, "max_steps": 3, "precision": precision}
        runs = [
            train(recipe(clips_folder, **SMALL, method=method, train={**more, "seed": seed}))
            for seed in (number, number, number + 1000)
        ]
        with tally.trial("the same run twice: bit-equal", (method, precision, number)):
            assert equal(runs[0], runs[1])
        with tally.trial("another seed: another run", (method, precision, number)):
            assert lines(runs[0])[0]["loss"] != lines(runs[2])[0]["loss"]


def test_files_in_whatever_order_they_were_written_are_one_data_set(tally, trials, clips_folder, tmp_path):
    files = sorted((clips_folder / "set").rglob("*.mp4"))
    known = load_data(f"folder:{clips_folder / 'set'}")
    for seed in trials(2, 40):
        with tally.trial("folders written in another order: the same data set", seed):
            for number in np.random.default_rng(seed).permutation(len(files)):
                link = tmp_path / str(seed) / files[number].relative_to(clips_folder / "set")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.hardlink_to(files[number])
            again = load_data(f"folder:{tmp_path / str(seed)}")
            assert again.hash == known.hash
            assert [video.id for video in again.videos] == [video.id for video in known.videos]
        with tally.trial("tables in another order: another data set, told by its hash", seed):
            rows = [f"{path},{path.parent.name},{path.parent.parent.name}" for path in files]
            hashes = set()
            for name in ("as", "turned"):
                table = tmp_path / f"{seed}-{name}.csv"
                order = rows if name == "as" else rows[1:] + rows[:1]
                table.write_text("\n".join(["path,label,split", *order]))
                hashes.add(load_data(f"csv:{table}").hash)
            assert len(hashes) == 2


@pytest.mark.slow
@pytest.mark.long
def test_another_process_another_hash_seed_and_a_resumed_run_with_other_workers(
    tally, trials, clips_folder, tmp_path
):
    for number in trials(1, 3):
        method = METHODS[number]
        more = {"batch_size": 4, "epochs": 2, "checkpoint_every": 2, "seed": number}
        path = tmp_path / f"{number}.yaml"
        path.write_text(to_yaml(recipe(clips_folder, **SMALL, method=method, teachers=LIVE, train=more)))
        runs = [tmp_path / f"{number}-{name}" for name in "abc"]
        with tally.trial("other processes, other hash seeds: bit-equal", (method, number)):
            for run, seed in zip(runs, ("1", "2"), strict=False):
                command = [
                    sys.executable,
                    "-m",
                    "ccl_cli",
                    "train",
                    "--recipe",
                    str(path),
                    "--output",
                    str(run),
                ]
                subprocess.run(
                    command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True
                )
            assert equal(runs[0], runs[1])
        with tally.trial("stopped, resumed with other workers: bit-equal", (method, number)):
            ended(
                start(["--recipe", str(path), "--output", str(runs[2]), "--max-steps", "2", "--workers", "2"])
            )
            ended(start(["--resume", str(runs[2]), "--max-steps", "0", "--workers", "1"]))
            assert equal(runs[0], runs[2])


@pytest.mark.slow
@pytest.mark.long
def test_how_far_threads_move_a_run(tally, clips_folder, tmp_path):
    """They change the order of sums, as torch says; twice the same number is bit-equal."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        to_yaml(recipe(clips_folder, **SMALL, teachers=LIVE, train={"batch_size": 6, "max_steps": 10}))
    )
    runs = {}
    for threads, again in product((1, 2), "ab"):
        runs[threads, again] = tmp_path / f"{threads}{again}"
        command = ["train", "--recipe", str(path), "--output", str(runs[threads, again])]
        subprocess.run(
            [sys.executable, "-m", "ccl_cli", *command],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            check=True,
            capture_output=True,
        )
    for threads in (1, 2):
        with tally.trial("twice on the same number of threads (1, 2): bit-equal", threads):
            assert equal(runs[threads, "a"], runs[threads, "b"])
    same = equal(runs[1, "a"], runs[2, "a"])
    tally.figure("a run on 2 threads equals the one on 1 bit for bit", "yes" if same else "no")
    far = _losses_apart(runs[1, "a"], runs[2, "a"])
    tally.figure("2 threads against 1, 10 steps: largest relative difference of a loss", f"{far:.1e}")


# ---- several processes


def test_the_videos_of_a_step_do_not_depend_on_the_number_of_processes(tally, trials):
    for seed in trials(30, 5000):
        rng = np.random.default_rng(seed)
        processes, accumulation = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        given = {
            "videos": int(rng.integers(1, 60)),
            "batch_size": processes * accumulation * int(rng.integers(1, 6)),
            "epochs": int(rng.integers(1, 4)),
            "seed": seed,
            "accumulation": accumulation,
        }
        given["start"] = int(rng.integers(0, EpochSampler(**given).total_steps + 1))
        with tally.trial("1 to 4 processes: the same videos in each micro-batch, odd last ones too", seed):
            alone = list(EpochSampler(**given))
            shares = [
                list(EpochSampler(**given, rank=rank, processes=processes)) for rank in range(processes)
            ]
            assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == alone


def _losses_apart(one: Path, other: Path) -> float:
    """Largest relative difference of a loss."""
    pairs = zip(lines(one), lines(other), strict=True)
    return max(abs(a["loss"] - b["loss"]) / abs(a["loss"]) for a, b in pairs)


def _weights_apart(one: Path, other: Path, began: dict[str, torch.Tensor]) -> float:
    """How far two runs' weights are from each other, as a share of how far the first has come."""
    first, second = weights(one), weights(other)
    names = [name for name, value in first.items() if value.is_floating_point()]
    apart = sum(float((first[name] - second[name]).double().square().sum()) for name in names)
    moved = sum(float((first[name] - began[name]).double().square().sum()) for name in names)
    return (apart / moved) ** 0.5


@pytest.mark.slow
def test_two_processes_train_what_one_does_to_rounding(tally, trials, clips_folder, tmp_path, monkeypatch):
    """What rounding alone does in that many steps, the same run with the other memory format tells."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    found = []
    for number in trials(1, 6):
        method = METHODS[number]
        steps = {"batch_size": 8, "max_steps": 10 if full() else 4, "seed": number}
        changes = {"method": method, "teachers": LIVE, **SMALL, "optim": {"lr": 1e-4}}
        experiment, turned = (
            recipe(clips_folder, **changes, train={**steps, "channels_last": last}) for last in (False, True)
        )
        path = tmp_path / f"{number}.yaml"
        path.write_text(to_yaml(experiment))
        one, other, two = train(experiment), train(turned), tmp_path / f"two{number}"
        ended(start(["--recipe", str(path), "--num-processes", "2", "--output", str(two)]))
        began = build(experiment).student.state_dict()
        first = [lines(run)[0] for run in (one, two)]
        found.append([(_losses_apart(one, run), _weights_apart(one, run, began)) for run in (two, other)])
        with tally.trial(
            "2 processes: the loss of the first step is that of 1 to rounding", (method, number)
        ):
            assert json.loads((two / "summary.json").read_text())["processes"] == 2
            assert first[0].keys() == first[1].keys()
            assert first[1]["loss"] == pytest.approx(first[0]["loss"], rel=1e-5)
        with tally.trial("2 processes, 10 steps: from 1 no further than rounding leads", (method, number)):
            ((losses, weights), (losses_turned, weights_turned)) = found[-1]
            assert losses < max(1e-3, 10 * losses_turned)
            assert weights < max(1e-2, 10 * weights_turned)
    for number, (two, other) in enumerate(found if full() else ()):
        what = f"{METHODS[number]}, 10 steps, 2 processes against 1 (one memory format against the other)"
        tally.figure(f"{what}: loss, relative", f"{two[0]:.0e} ({other[0]:.0e})")
        tally.figure(f"{what}: weights, share of their way", f"{two[1]:.0e} ({other[1]:.0e})")


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_evaluate_and_embed_as_one_does(tally, trials, clips_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for number in trials(1, 2):
        more = {"batch_size": 6, "max_steps": 6, "seed": number}
        run = train(recipe(clips_folder, **SMALL, method="baseline", train=more))
        figures = {}
        for processes in ("1", "2"):
            command = [
                sys.executable,
                "-m",
                "ccl_cli",
                "eval",
                str(run),
                "--json",
                "--num-processes",
                processes,
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            figures[processes] = json.loads(done.stdout)
        with tally.trial("evaluation in 2 processes: the figures of 1", number):
            assert figures["1"] == figures["2"]
        with tally.trial("evaluation with 0, 1, 2 workers: the figures of each", number):
            results = [evaluate(run, workers=workers) for workers in (0, 1, 2)]
            assert results[0] == results[1] == results[2]


@pytest.mark.slow
@pytest.mark.long
def test_a_benchmark_does_not_depend_on_how_many_cells_run_at_once(tally, clips_folder):
    methods = {name: {"method": name, "optim": {"lr": 1e-3}} for name in METHODS[:5]}
    runs = []
    for jobs in (1, 2):
        experiment = bench_recipe(clips_folder, methods=methods).model_copy(update={"name": f"jobs{jobs}"})
        assert run_bench(experiment, jobs=jobs).failed == []
        runs.append([folder_of(experiment) / cell.folder for cell in final_cells(experiment, {})])
    for one, other in zip(*runs, strict=True):
        with tally.trial("a benchmark's cells, one or two at once: bit-equal", one.name):
            assert one.name.split("-s0")[0] == other.name.split("-s0")[0]
            assert equal(one, other)
            first, second = (
                json.loads((run / "summary.json").read_text())["evaluation"] for run in (one, other)
            )
            assert first == second
