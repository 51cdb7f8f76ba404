from __future__ import annotations

import os

import pytest

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.write import pack
from ccl_cli.training import input_bench
from ccl_cli.training.input_bench import bench_input
from tests.training.runs import small_recipe


def recipe(data: str, **train) -> Recipe:
    base = {"method": "baseline", "clip": {"short_side": 48}, "train": {"batch_size": 4, **train}}
    return small_recipe(data, base)


@pytest.fixture
def source(clips_folder) -> str:
    return f"folder:{clips_folder / 'set'}"


def test_an_accelerator_that_would_wait_and_what_to_do(source, monkeypatch):
    monkeypatch.setattr(input_bench, "cores", lambda: 64)
    result = bench_input(recipe(source), seconds=0.3, clips_per_second=20.5 * 1000)
    one = result["worker"]["clips_per_s"]
    assert 1 < one < 20_000
    assert result["workers"] == {"number": 0, "clips_per_s": one}
    assert result["data_wait"] == pytest.approx(1 - one / 20_500)
    workers, packing = result["advice"]
    assert workers.startswith("--workers ")
    assert int(workers.split()[1].strip(";")) == min(64, -(-20_500 // one))
    assert packing == f"ccl data pack {source} --output packed --short-side 48; then --data shards:packed"


def test_one_that_is_slower_than_reading_waits_for_nothing(source):
    result = bench_input(recipe(source), seconds=0.2, clips_per_second=0.5)
    assert (result["data_wait"], result["advice"]) == (0.0, [])


def test_a_packed_set_is_not_to_be_packed_again(tmp_path, source):
    pack(source, tmp_path / "p", Settings(), workers=0, shard_size=10**9, max_unreadable=0)
    wanted = 10**6
    result = bench_input(recipe(f"shards:{tmp_path / 'p'}"), seconds=0.2, clips_per_second=wanted)
    assert not any("data pack" in advice for advice in result["advice"])
    assert result["advice"]
    # What a clip takes of a shard: the record and eight JPEGs of 48x48 pixels, between 0.5 and 5 kB each.
    per_clip = 1000 * result["worker"]["mb_per_s"] / result["worker"]["clips_per_s"]
    assert 4 < per_clip < 45


def test_the_training_step_is_timed_on_this_machine(source, tmp_path):
    before = sorted(os.listdir(tmp_path))
    step = bench_input(recipe(source), seconds=0.1)["step"]
    assert step["measured"] is True
    assert step["device"] in ("cpu", "cuda")
    assert step["clips_per_s"] == pytest.approx(4 / step["seconds"])
    assert sorted(os.listdir(tmp_path)) == before  # nothing is written


@pytest.mark.slow
def test_workers_are_measured_together_and_end(source):
    result = bench_input(recipe(source, workers=2), seconds=1, clips_per_second=1)
    assert result["workers"]["number"] == 2
    assert result["workers"]["clips_per_s"] > 1


def test_what_a_cache_holds_is_not_read(source):
    from accelerate import Accelerator

    from ccl_cli.training.build import build
    from ccl_cli.training.cache.read import open_caches

    teacher = {"teachers": ("audio:small?weights=random&seconds=2.0",), "method": {"ccl": {}}}
    experiment = recipe(source).model_copy(update=teacher)
    read = input_bench._trainer(experiment, build(experiment))
    assert list(read.live) == ["audio:small"]
    wanted = experiment.cache.model_copy(update={"use": "build"})
    experiment = experiment.model_copy(update={"cache": wanted})
    assert list(input_bench._trainer(experiment, build(experiment)).live) == ["audio:small"]  # it builds none
    open_caches(experiment, build(experiment), Accelerator(cpu=True))
    assert not input_bench._trainer(experiment, build(experiment)).live
    assert bench_input(experiment, seconds=0.1)["worker"]["clips_per_s"] > 0
