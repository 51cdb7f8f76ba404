"""Many videos, classes, rows and runs: memory stays flat, no file stays open."""

from __future__ import annotations

import gc
import json
import logging
import os
import statistics
from pathlib import Path

import numpy as np
import psutil
import pytest

from ccl_cli.__main__ import main
from ccl_cli.data.clips.dataset import TrainingClips, clip_loader
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.manifest import Manifest, Video
from ccl_cli.data.sources import load_data
from ccl_cli.data.video.video_writer import write_clip
from ccl_cli.evaluation.evaluate import evaluate
from tests.conftest import moving_stripes
from tests.reliability.bounds import bounded
from tests.reliability.test_media import CLIP, SoundTeacher
from tests.training.runs import recipe

pytestmark = pytest.mark.long
FLAT = 40  # MB that may come between the third and the last quarter, when the caches are full


def measured() -> tuple[float, int]:
    """Unshared megabytes and open files of this process and all that it has started."""
    megabytes, files = 0.0, 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            megabytes, files = megabytes + process.memory_full_info().uss / 1e6, files + process.num_fds()
        except psutil.Error:  # it has ended
            continue
    return megabytes, files


def assert_flat(samples: list[tuple[float, int]]) -> None:
    part = len(samples) // 4
    for values, growth in zip(zip(*samples, strict=True), (FLAT, 5), strict=True):
        early, late = (statistics.median(some) for some in (values[2 * part : 3 * part], values[-part:]))
        assert late - early < growth, f"{early} -> {late}"


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> str:
    """Six thousand names of a hundred tiny videos, half for training and half for testing, in 1,500 classes."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    for number in range(100):
        sound = rng.random(25_600, dtype=np.float32) - 0.5 if number % 2 else None
        write_clip(folder / f"{number}.mp4", moving_stripes(rng, number % 4 // 2, 20, 32), 25, sound)
    for number in range(6000):
        place = folder / "set" / ("train", "test")[number % 2] / f"c{number // 2 % 1500:04}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(folder / f"{number % 100}.mp4", place / f"{number:06}.mp4")
    return f"folder:{folder / 'set'}"


def test_an_epoch_of_many_videos(many, caplog):
    caplog.set_level(logging.ERROR)
    videos, rows, samples = load_data(many).split("train"), set(), []
    dataset = TrainingClips(videos, CLIP, {"audio:a": SoundTeacher()}, 0)
    for loaded in clip_loader(dataset, EpochSampler(len(videos), 20, 1), workers=2, pin_memory=False):
        rows.update(loaded.batch.rows.tolist())
        samples.append(measured())
    assert rows == set(range(len(videos)))
    assert_flat(samples)


def test_many_videos_of_many_classes_are_trained_on_and_evaluated(many, clips_folder, capsys):
    from ccl_cli.training.train import train

    changes = {"data": many, "teachers": [], "method": "baseline", "clip": {"frames": 4, "size": 16}}
    run = train(recipe(clips_folder, **changes, train={"epochs": 1, "batch_size": 50, "workers": 2}))
    with bounded(600, megabytes=1000):
        result = evaluate(run, workers=2)
        assert main(["report", "html", str(run), "--output", "page.html"]) == 0
    assert result["counts"]["test"]["read"] == 3000
    assert len(result["recognition"]["per_class"]) == 1500
    assert Path("page.html").stat().st_size < 2e6


def test_a_large_manifest(tmp_path, capsys):
    rows, classes = 200_000, 5000
    splits = ("train", "train", "train", "test")
    names = ((row, f"{row // 50}/v_{row}_g{row % 25:02}_c01") for row in range(rows))
    videos = tuple(
        Video(name, tmp_path / f"{row}.mp4", row % classes, splits[row // classes % 4]) for row, name in names
    )
    manifest = Manifest("large", tuple(map(str, range(classes))), videos)
    with bounded(60):
        manifest.save(tmp_path / "large.jsonl")
        again = Manifest.load(tmp_path / "large.jsonl")
        assert again.hash == manifest.hash
        assert 0.05 < len(again.hold_out(0.1).split("val")) / len(again.split("train")) < 0.2
        assert {draw.row for batch in EpochSampler(rows, 64, 1) for draw in batch} == set(range(rows))
        assert main(["data", "check", f"manifest:{tmp_path / 'large.jsonl'}", "--json"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert sum(each["counts"]["missing"] for each in report["splits"].values()) == rows


def test_many_runs_in_one_process(clips_folder, capsys):
    """Trained and evaluated again and again, as a notebook does."""
    from ccl_cli.training.train import train

    samples = []
    for seed in range(16):
        settings = {"max_steps": 3, "seed": seed, "workers": seed % 2}
        evaluate(train(recipe(clips_folder, teachers=[], method="baseline", train=settings)))
        gc.collect()
        samples.append(measured())
    assert_flat(samples)
