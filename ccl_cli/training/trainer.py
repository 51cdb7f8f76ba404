"""The training loop. A signal stops it between two steps, with a checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ccl_cli.config.recipe import Recipe
from ccl_cli.data.clips.batch import Batch
from ccl_cli.data.clips.dataset import LoadedBatch, clip_loader
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.errors import Interrupted
from ccl_cli.teachers import embed
from ccl_cli.teachers.embedding_cache import Cached
from ccl_cli.training.batches import batch_sampler, training_clips
from ccl_cli.training.build import Parts
from ccl_cli.training.cache.read import CachedRows
from ccl_cli.training.compute.allocator import keep_blocks, separate_blocks
from ccl_cli.training.compute.nonfinite import StepGuard, TeacherFaults, all_finite
from ccl_cli.training.distiller import StepOutput, make_distiller
from ccl_cli.training.ema import AveragedStudent
from ccl_cli.training.held_out import HeldOut, Score
from ccl_cli.training.optim import make_optimizer, parameter_groups, scheduler, set_lr
from ccl_cli.training.run import checkpoint
from ccl_cli.training.run.folder import METRICS, RunFolder
from ccl_cli.training.run.metrics_log import Clock, Meter, accuracy, jsonl_writer, progress_lines
from ccl_cli.training.run.publish import check_finite, publish
from ccl_cli.training.run.samples import with_sample_sheet
from ccl_cli.training.run.video_states import VideoStates
from ccl_cli.training.standardizers import cached_embedding, make_standardizers
from ccl_cli.utils.distributed import any_process, barrier, is_main, on_main, world_size
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.signals import stop_on_signal

_log = logging.getLogger("ccl")


class Trainer:
    """One training run.

    Attributes:
        unwrapped: The distiller itself. Its state is saved.
        distiller: The distiller as Accelerate has prepared it, for the forward pass.
        live: Teachers that run in every step, by name.
        cached: Cached embeddings of the other teachers, by name.
        students: Students by kind of weights, "ema" and "raw"; the first one is scored and published.
        step: Number of optimiser steps taken, skipped ones included.
    """

    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        run: RunFolder,
        accelerator: Accelerator,
        cached: Mapping[str, Cached] | None = None,
        score: Score | None = None,
    ) -> None:
        self.recipe, self.parts, self.run, self.accelerator = recipe, parts, run, accelerator
        self.device = accelerator.device
        if self.device.type == "cpu":
            separate_blocks()
        self.use_caches(cached or {})
        standardizers = make_standardizers(recipe.standardize, parts.teachers, self.cached)
        for method in parts.methods.values():
            method.use_cached(partial(cached_embedding, self.cached, standardizers))
        self.unwrapped = make_distiller(recipe, parts, accelerator, standardizers)
        optimizer = make_optimizer(parameter_groups(self.unwrapped, recipe.optim), recipe.optim)
        self.distiller, self.optimizer = accelerator.prepare(self.unwrapped, optimizer)
        student = self.unwrapped.student
        self.ema = AveragedStudent(student, recipe.train) if recipe.train.ema else None
        self.students = {"ema": self.ema.student, "raw": student} if self.ema else {"raw": student}
        self.held_out = HeldOut(recipe, score)
        self.step, self.seconds_before, self._began = 0, 0.0, time.perf_counter()
        self.steps_per_epoch = batch_sampler(recipe, parts).steps_per_epoch
        self.scheduler = scheduler(self.optimizer, recipe.optim, recipe.train.epochs, self.steps_per_epoch)
        self.meter, self.clock, self.video_states = Meter(), Clock(), VideoStates()
        self.guard, self.teacher_faults = StepGuard(), TeacherFaults(len(parts.videos), self.device)

    def use_caches(self, cached: Mapping[str, Cached]) -> None:
        """Read the embeddings of these teachers, and run the others."""
        manifest, videos, seed = self.parts.manifest, self.parts.videos, self.recipe.train.seed
        self.cached = {name: CachedRows(each, manifest, videos, seed) for name, each in cached.items()}
        self.live = {
            name: teacher.to(self.device)
            for name, teacher in self.parts.teachers.items()
            if name not in cached
        }

    @property
    def seconds(self) -> float:
        """Seconds spent on this run so far, without interruptions."""
        return self.seconds_before + time.perf_counter() - self._began

    def fit(self) -> None:
        """Train to the end of the run or to ``train.max_steps``, then publish the student."""
        sampler = batch_sampler(self.recipe, self.parts, self.step)
        last = min(sampler.total_steps, self.recipe.train.max_steps or sampler.total_steps)
        if is_main():
            self.run.truncate_metrics(self.step)
        with (
            stop_on_signal() as stop,
            Reporter("train", last, self.step) as reporter,
            jsonl_writer(self.run.path / METRICS) as write,
        ):
            # Workers start only if a step is left.
            for micro_batches in () if self._is_over(last) else self._steps(sampler):
                self.train_step(micro_batches)
                self._after_step(last, reporter, write)
                self.guard.check(self, micro_batches)
                if self._is_over(last):
                    break
                if any_process(stop.requested, self.device):
                    raise Interrupted(
                        f"Stopped by {stop.name} at step {self.step}; the state is in '{self.save()}'.",
                        f"Continue with `ccl train --resume {self.run.path}`.",
                    )
        self._end(finished=self._is_over(sampler.total_steps))

    def _is_over(self, last: int) -> bool:
        return self.step >= last or self.held_out.exhausted

    def _steps(self, sampler: EpochSampler) -> Iterator[list[LoadedBatch]]:
        """Yield the micro-batches of one step after the other, of this process."""
        loader = clip_loader(
            training_clips(self.recipe, self.parts, self.live),
            sampler,
            workers=self.recipe.train.workers,
            pin_memory=self.device.type == "cuda",
            # A process without workers ends at once: a checkpoint needs all processes at the same step.
            advice=f"continue with `ccl train --resume {self.run.path}`",
        )
        self.clock.restart()
        batches = with_sample_sheet(self, self.clock.waiting(loader))
        while micro_batches := list(islice(batches, sampler.accumulation)):
            yield micro_batches

    def train_step(self, micro_batches: Sequence[LoadedBatch]) -> None:
        """Take one optimiser step. It changes nothing if a loss or the gradient is not finite."""
        # Randomness in networks is a function of (seed, step, rank), so checkpoints hold no generator state.
        seeds = np.random.SeedSequence([self.recipe.train.seed, self.step, self.accelerator.process_index])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        set_lr(self.optimizer, self.scheduler, self.step)
        self.guard.snapshot(self.unwrapped)
        share = 1 / len(micro_batches)
        figures = []
        for number, loaded in enumerate(micro_batches):
            self.video_states.add(loaded)
            sync = number == len(micro_batches) - 1
            with nullcontext() if sync else self.accelerator.no_sync(self.distiller):
                figures.append(self._micro_step(loaded.batch, share))
        losses = [each["loss"] for each in figures]
        if all_finite(losses, self.unwrapped.parameters(), self.accelerator.scaler):
            if self.recipe.optim.clip_norm:
                self.accelerator.clip_grad_norm_(self.unwrapped.parameters(), self.recipe.optim.clip_norm)
            self.optimizer.step()
            if self.optimizer.step_was_skipped:  # by the scaler of fp16, which lowers its scale
                self.guard.undo(self.unwrapped)
            else:
                self.guard.accept()
                if self.ema:
                    self.ema.update(self.unwrapped.student)
            for values in figures:
                self.meter.add(values, share)
        else:
            self.guard.skip(self.unwrapped, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cpu":
            keep_blocks()
        self.step += 1

    def _micro_step(self, cpu_batch: Batch, share: float) -> dict[str, Tensor]:
        """Forward and backward pass of a micro-batch, which is ``share`` of a step; return its figures."""
        batch = cpu_batch.to(self.device)
        with self.accelerator.autocast():
            embeddings = {
                name: embed(teacher, *batch.inputs[name], stages=self.parts.uses_stages)
                for name, teacher in self.live.items()
            }
        for name, rows in self.cached.items():
            # Use the row numbers on the CPU, because copying them back from a GPU would wait for it.
            embeddings[name] = rows.embedding(cpu_batch.rows, batch.epoch, self.device)
        embeddings = {
            name: self.teacher_faults.drop(name, embedding, batch.rows)
            for name, embedding in embeddings.items()
        }
        output: StepOutput = self.distiller(batch, embeddings)
        self.accelerator.backward(output.loss * share)
        figures = {"loss": output.loss.detach()}
        if self.parts.classes:
            partly = self.parts.labelled < len(self.parts.videos)
            figures |= accuracy(output.logits, batch.labels, partly=partly)
        self.clock.clips += len(batch.labels)
        return figures | output.parts

    def _after_step(self, last: int, reporter: Reporter, write: Any) -> None:
        """Log, evaluate and save when it is time to."""
        train = self.recipe.train
        epoch_ends = self.step % self.steps_per_epoch == 0
        text: str | None = None
        lines: list[str] | None = None
        if self.step % train.log_every == 0 or self.step == last:
            figures = self.meter.read() | self.clock.read() | {"skipped": self.guard.total}
            lines = progress_lines(figures, self.held_out.text)
            text = f"{lines[0]}  {lines[-1]}"
            epoch = -(-self.step // self.steps_per_epoch)
            write({"step": self.step, "epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"], **figures})
            self.accelerator.log(figures, step=self.step)
            self.video_states.check(self.parts, self.recipe.max_unreadable)
            self.teacher_faults.check(self.parts.videos)
        reporter.advance(text=text, lines=lines)
        if (epoch_ends and reporter.has_text) or self.step == last:
            reporter.line()
        if self.held_out.due(self.step, self.steps_per_epoch):
            with reporter.paused():
                self.held_out.evaluate(self, write)
            self.clock.restart()
        every = train.checkpoint_every
        if (every and self.step % every == 0) or (not every and epoch_ends) or self.step == last:
            self.save()

    def save(self) -> Path:
        """Write a checkpoint; return its path."""
        check_finite(self)
        state = checkpoint.state_dict(self)
        return on_main(lambda: checkpoint.write_state(self.run.checkpoints, self.step, state))

    def _end(self, *, finished: bool) -> None:
        """Publish the model and leave the process group."""
        if self.guard.total:
            _log.warning("%d of %d steps were skipped.", self.guard.total, self.step)
        publish(self, finished=finished)
        barrier()  # no process may leave the group while another one still communicates
        if world_size() > 1:
            # Destroy the DDP wrapper before the process group: its destructor holds the GIL, and a thread of
            # a group that is being destroyed may wait for the GIL.
            self.distiller = self.unwrapped
            self.accelerator.free_memory()
        self.accelerator.end_training()
