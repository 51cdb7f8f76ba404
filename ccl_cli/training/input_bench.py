"""``ccl data bench``: speed of reading a data set as a recipe does, compared with the speed of training."""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.clips.dataset import LoadedBatch, TrainingClips, clip_loader
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.training.batches import training_clips
from ccl_cli.training.build import Parts, build
from ccl_cli.training.cache.read import open_caches
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.run.folder import RunFolder
from ccl_cli.training.trainer import Trainer
from ccl_cli.utils.processes import cores

_STEPS = 3  # timed, after one that warms up
_PATIENCE = 30.0  # seconds after which no further step starts
_log = logging.getLogger("ccl")


def bench_input(recipe: Recipe, *, seconds: float, clips_per_second: float | None = None) -> dict[str, Any]:
    """Measure the speed of reading, for so many seconds each, and of training.

    Returns:
        Clips per second of one worker, of all workers and of training (measured if not given); the share of
        time that training would wait for data; and advice.
    """
    parts = build(recipe)
    trainer = _trainer(recipe, parts)
    dataset = training_clips(recipe, parts, trainer.live)
    per_worker = _measure_one_worker(dataset, recipe, seconds)
    workers = recipe.train.workers
    together, batches = _measure_all_workers(dataset, recipe, seconds) if workers else (per_worker, [])
    step: dict[str, Any] = {"clips_per_s": clips_per_second, "measured": False}
    if clips_per_second is None:
        step = _measure_training(recipe, trainer, batches or [next(_stream(dataset, recipe, 0))])
    wait = max(0.0, 1 - together / step["clips_per_s"])
    return {
        "data": {"name": parts.manifest.name, "videos": len(parts.videos)},
        "worker": {"clips_per_s": per_worker},
        "workers": {"number": workers, "clips_per_s": together},
        "step": step,
        "data_wait": wait,
        "cores": cores(),
        "advice": _advice(recipe, parts, per_worker, step["clips_per_s"]) if wait > 0 else [],
    }


def _measure_one_worker(dataset: TrainingClips, recipe: Recipe, seconds: float) -> float:
    """Clips per second that this process reads with one thread, like a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    draws = chain.from_iterable(_sampler(dataset, recipe))
    dataset[[next(draws)]]  # imports and first calls
    begin, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < seconds or not count:
        dataset[[next(draws)]]
        count += 1
    torch.set_num_threads(threads)
    return count / elapsed


def _measure_all_workers(
    dataset: TrainingClips, recipe: Recipe, seconds: float
) -> tuple[float, list[LoadedBatch]]:
    """Clips per second of all workers, from the first batch on, and the last batches."""
    batches = _stream(dataset, recipe, recipe.train.workers)
    last = [next(batches)]
    begin, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < seconds or count < recipe.train.workers:
        last = [*last[-1:], next(batches)]
        count += 1
    del batches  # ends the workers
    return count * len(last[-1].batch.labels) / elapsed, last


def _stream(dataset: TrainingClips, recipe: Recipe, workers: int) -> Iterator[LoadedBatch]:
    return clip_loader(dataset, _sampler(dataset, recipe), workers=workers, pin_memory=False)


def _sampler(dataset: TrainingClips, recipe: Recipe) -> EpochSampler:
    """Micro-batches of a nearly endless run."""
    train = recipe.train
    return EpochSampler(len(dataset.videos), train.batch_size, 10**6, train.seed, train.accumulation)


def _trainer(recipe: Recipe, parts: Parts) -> Trainer:
    """A trainer that reads existing caches, as training would, and builds none."""
    accelerator = set_up(recipe.train.precision)
    cached = open_caches(recipe, parts, accelerator, build=False)
    return Trainer(recipe, parts, RunFolder(Path()), accelerator, cached)


def _measure_training(recipe: Recipe, trainer: Trainer, batches: Sequence[LoadedBatch]) -> dict[str, Any]:
    """Time a few training steps on these batches, with teachers and optimiser."""
    _log.info(
        "Timing training steps of %d clips on %s. --clips-per-second skips this.",
        recipe.train.batch_size,
        trainer.device,
    )
    micro_batches = [batches[n % len(batches)] for n in range(recipe.train.accumulation)]
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) <= _STEPS and (len(times) < 2 or time.perf_counter() - begin < _PATIENCE):
        start = time.perf_counter()
        trainer.train_step(micro_batches)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        times.append(time.perf_counter() - start)
    best = min(times[1:])  # cuDNN chooses algorithms in the first one
    clips = sum(len(loaded.batch.labels) for loaded in micro_batches)
    return {
        "clips_per_s": clips / best,
        "measured": True,
        "seconds": best,
        "device": str(trainer.device),
        "precision": trainer.accelerator.mixed_precision.replace("no", "fp32"),
    }


def _advice(recipe: Recipe, parts: Parts, per_worker: float, clips_per_second: float) -> list[str]:
    """Options and commands that make reading faster, the most useful first."""
    limit, needed = cores(), math.ceil(clips_per_second / per_worker)
    steps = []
    if recipe.train.workers < min(needed, limit):
        shortage = "" if needed <= limit else f"; {needed} would be needed and there are {limit} cores"
        steps.append(f"--workers {min(needed, limit)}{shortage}")
    if not parts.videos.packed:
        side, data = recipe.clip.short_side, shlex.quote(recipe.data or "")
        steps.append(f"ccl data pack {data} --output packed --short-side {side}; then --data shards:packed")
    return steps or ["more cores, fewer teachers, or a pack with a smaller --short-side"]
