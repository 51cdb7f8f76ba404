"""Many videos, classes, rows and runs: memory stays flat, no file stays open."""

from __future__ import annotations

import gc
import json
import logging
import os
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from ccl_cli.__main__ import main
from ccl_cli.data.clips.dataset import LoadedBatch, TrainingClips, clip_loader
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
FLAT = 40  # MB that may come between the second and the last quarter of the time


@contextmanager
def flat(retained: float = 0) -> Iterator[None]:
    """Fail if memory or open files of this process and its children grow while the block runs.

    Args:
        retained: Megabytes that grow by intention.
    """
    samples, end = [measured()], threading.Event()

    def watch() -> None:
        while not end.wait(0.5):
            samples.append(measured())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
    part = max(1, len(samples) // 4)
    early, late = (tuple(map(statistics.median, zip(*some, strict=True))) for some in (samples[part : 2 * part] or samples, samples[-part:]))  # fmt: skip
    assert late[0] - early[0] < FLAT + retained, f"{early} -> {late}"
    assert late[1] - early[1] < 5, f"{early} -> {late}"


def measured() -> tuple[float, int]:
    """Unshared megabytes and open files of this process and all that it has started."""
    megabytes, files = 0.0, 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            megabytes, files = megabytes + process.memory_full_info().uss / 1e6, files + process.num_fds()
        except psutil.Error:  # it has ended
            continue
    return megabytes, files


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
    videos = load_data(many).split("train")
    rows: set[int] = set()
    with flat():
        dataset = TrainingClips(videos, CLIP, {"audio:a": SoundTeacher()}, 0)
        loader = clip_loader(dataset, EpochSampler(len(videos), 20, 1), workers=2, pin_memory=False)
        for loaded in loader:
            assert isinstance(loaded, LoadedBatch)
            rows.update(loaded.batch.rows.tolist())
    assert rows == set(range(len(videos)))


def test_many_videos_of_many_classes_are_trained_on_and_evaluated(many, clips_folder, capsys):
    from ccl_cli.training.train import train

    changes = {"data": many, "teachers": [], "method": "baseline", "clip": {"frames": 4, "size": 16}}
    run = train(recipe(clips_folder, **changes, train={"epochs": 1, "batch_size": 50, "workers": 2}))
    with flat(retained=4e-6 * 1500 * 3000):  # the scores
        result = evaluate(run, workers=2)
    assert result["counts"]["test"]["read"] == 3000
    assert len(result["recognition"]["per_class"]) == 1500
    with bounded(120, megabytes=1000):
        assert main(["report", "html", str(run), "--output", "page.html"]) == 0
    assert Path("page.html").stat().st_size < 2e6


def test_a_large_manifest(tmp_path, capsys):
    rows, classes = 200_000, 5000
    splits = ("train", "train", "train", "test")
    videos = tuple(
        Video(f"{row // 50}/v_{row}_g{row % 25:02}_c01", tmp_path / f"{row}.mp4", row % classes, splits[row // classes % 4])
        for row in range(rows)
    )  # fmt: skip
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

    def cycle(seed: int) -> None:
        changes = {"teachers": [], "method": "baseline", "train": {"max_steps": 3, "seed": seed, "workers": seed % 2}}  # fmt: skip
        evaluate(train(recipe(clips_folder, **changes)))
        gc.collect()

    for seed in range(4):
        cycle(seed)
    early = measured()
    for seed in range(4, 16):
        cycle(seed)
    late = measured()
    assert late[0] - early[0] < FLAT
    assert late[1] - early[1] < 5
