from __future__ import annotations

import os

import pytest

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.write import pack
from ccl_cli.training import input_bench
from ccl_cli.training.build import build
from ccl_cli.training.cache.build import build_cache
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.input_bench import bench_input
from tests.training.runs import small_recipe

AUDIO = "audio:small?weights=random&seconds=2.0"


def recipe(data: str, workers: int = 0, **changes) -> Recipe:
    base = {"method": "baseline", "clip": {"short_side": 48}, "train": {"batch_size": 4, "workers": workers}}
    return small_recipe(data, base, changes)


@pytest.fixture
def source(clips_folder) -> str:
    return f"folder:{clips_folder / 'set'}"


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_gpu_that_would_wait_and_what_to_do(source, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(input_bench, "cores", lambda: 64)
    result = bench_input(recipe(source, workers), seconds=0.3, clips_per_second=1e6)
    assert 1 < result["worker"]["clips_per_s"] < 20_000
    assert result["workers"]["number"] == workers
    assert result["data_wait"] == pytest.approx(1 - result["workers"]["clips_per_s"] / 1e6)
    packing = f"ccl data pack {source} --output packed --short-side 48; then --data shards:packed"
    assert [result["advice"][0].partition(";")[0], result["advice"][1]] == ["--workers 64", packing]
    pack(source, tmp_path / "p", Settings(), workers=0, shard_size=10**9, max_unreadable=0)
    (advice,) = bench_input(recipe(f"shards:{tmp_path / 'p'}"), seconds=0.1, clips_per_second=1e6)["advice"]
    assert "data pack" not in advice


def test_the_training_step_is_timed_with_what_a_cache_holds_and_nothing_is_written(source, tmp_path):
    experiment = recipe(source, teachers=AUDIO, method="ccl", cache={"use": "build"})
    result = bench_input(experiment, seconds=0.1)
    assert result["step"]["clips_per_s"] == pytest.approx(4 / result["step"]["seconds"])
    assert os.listdir(tmp_path) == []
    parts = build(experiment)
    assert list(input_bench._trainer(experiment, parts).live) == ["audio:small"]
    (teacher,) = parts.teachers.values()
    build_cache("audio:small", teacher, parts.manifest, experiment, set_up("fp32"))
    assert not input_bench._trainer(experiment, build(experiment)).live


def test_a_slow_gpu_waits_for_nothing(source):
    result = bench_input(recipe(source), seconds=0.1, clips_per_second=0.5)
    assert (result["data_wait"], result["advice"]) == (0.0, [])
