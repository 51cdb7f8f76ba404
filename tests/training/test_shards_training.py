"""Training from shards: the same videos, windows and sound as from the files."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from ccl_cli.config.recipe import Clip
from ccl_cli.data.clips.dataset import TrainingClips
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.shards.encode import Settings
from ccl_cli.data.shards.write import pack
from ccl_cli.data.sources import load_data
from ccl_cli.evaluation.evaluate import evaluate
from ccl_cli.teachers.waveform import Waveform
from ccl_cli.training.build import build
from ccl_cli.training.train import train
from tests.training.runs import small_recipe

CLIP = Clip(frames=8, size=32, short_side=48)


@pytest.fixture(scope="module", params=["jpeg", "mp4"])
def sets(request, tmp_path_factory, clips_folder) -> tuple[str, str]:
    """The same set as files and as shards."""
    source, folder = f"folder:{clips_folder / 'set'}", tmp_path_factory.mktemp("shards") / "set"
    settings = Settings(format=request.param, quality={"jpeg": 90, "mp4": 16}[request.param])
    pack(source, folder, settings, workers=0, shard_size=300_000, max_unreadable=0.05)
    return source, f"shards:{folder}"


def recipe(data: str):
    return small_recipe(data, {"method": "baseline", "clip": CLIP.model_dump(), "train": {"max_steps": 1}})


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return 10 * math.log10(255**2 / float(((a.float() - b.float()) ** 2).mean()))


def test_every_draw_is_that_of_the_files_and_a_run_is_tested_on_shards(sets):
    files, shards = (
        TrainingClips(load_data(data).split("train"), CLIP, {"sound": Waveform(32000, 0.5)}, seed=3)
        for data in sets
    )
    for batch in EpochSampler(12, 6, epochs=2, seed=3):
        one, other = files[batch], shards[batch]
        assert (other.batch.labels.tolist(), other.states) == (one.batch.labels.tolist(), one.states)
        for views in zip(one.batch.video, other.batch.video, strict=True):
            assert psnr(*views) > 24  # the clips are noise laid over stripes
        heard, same = one.batch.inputs["sound"], other.batch.inputs["sound"]
        assert torch.equal(heard.present, same.present)
        assert float((heard.value - same.value).abs().max()) < 2 / 2**15
    shards.seed = 4
    assert psnr(*(clips[batch].batch.video for clips in (files, shards))) < 18  # other windows would be seen
    assert evaluate(train(recipe(sets[1])), tasks=["recognition"])["counts"]["test"]["read"] == 6


def test_frames_packed_smaller_than_the_recipe_wants_them_are_warned_of(tmp_path, clips_folder, caplog):
    for side, warned in (32, True), (64, False):
        options = {"workers": 0, "shard_size": 10**9, "max_unreadable": 0}
        pack(f"folder:{clips_folder / 'set'}", tmp_path / str(side), Settings(side), **options)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ccl"):
            build(recipe(f"shards:{tmp_path / str(side)}"))
        assert ("packed at 32 pixels, the recipe reads them at 48" in caplog.text) == warned
