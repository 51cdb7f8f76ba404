"""The training run: one forward, one backward and one optimiser step at a time, stoppable and resumable."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ccl_cli.config.load import method_options
from ccl_cli.config.recipe import Recipe
from ccl_cli.data.clips.batch import Batch
from ccl_cli.data.clips.dataset import Loaded, TrainingSet, training_loader
from ccl_cli.data.clips.epoch_sampler import EpochSampler
from ccl_cli.data.clips.workers import naming_lost_workers
from ccl_cli.errors import CclError, Interrupted, UsageError
from ccl_cli.teachers import Teacher, embed
from ccl_cli.teachers.embedding_cache import Cached
from ccl_cli.training import checkpoint
from ccl_cli.training.allocator import keep_blocks, separate_blocks
from ccl_cli.training.artefact import save_model
from ccl_cli.training.batch_norm import naming_single_values, share_statistics
from ccl_cli.training.build import Parts, build, check_unreadable, parameter_count
from ccl_cli.training.caching import CachedRows, open_caches
from ccl_cli.training.device import pad_time_apart, set_up, start_tracker
from ccl_cli.training.distiller import Distiller, StepOutput
from ccl_cli.training.dry_run import describe
from ccl_cli.training.metrics_log import Clock, Meter, by_teacher, figures_text, jsonl_writer
from ccl_cli.training.nonfinite import Skipped, TeacherFaults, all_finite
from ccl_cli.training.optim import parameter_groups, scheduler, sgd
from ccl_cli.training.run_lock import open_run, release
from ccl_cli.training.runs import METRICS, RunFolder, versions
from ccl_cli.training.stop import StopRequest, stop_on_signal
from ccl_cli.utils.console import first_process
from ccl_cli.utils.distributed import any_process, barrier, gather_objects, is_main, on_main, rank, world_size
from ccl_cli.utils.progress import Reporter
from ccl_cli.utils.sentences import listed
from ccl_cli.utils.signals import Stopped

_log = logging.getLogger("ccl")


def train(
    recipe: Recipe, *, resume: Path | str | None = None, output: Path | None = None, dry_run: bool = False
) -> Path:
    """Train a student as the recipe says, or go on with a run.

    Args:
        recipe: The experiment.
        resume: A run folder, or "auto" for the newest unfinished run of the same recipe (a new one if none).
        output: Folder of a new run; default ``runs/<name>/<time>-<hash>``.
        dry_run: Build everything and read one batch, but write and train nothing.

    Returns:
        The run's folder.

    Raises:
        Interrupted: told to stop; the state was saved.
        CclError: anything the user can mend.
    """
    parts = build(recipe)
    if dry_run:
        if first_process():
            print(describe(recipe, parts))
        return Path()
    accelerator = set_up(recipe.train.precision, recipe.train.tracker)
    _sampler(recipe, parts, 0)  # refuses a batch that cannot be split before anything is written
    run, resumed = on_main(lambda: open_run(recipe, parts.manifest, resume, output))
    try:
        cached = open_caches(recipe, parts, accelerator)
        trainer = Trainer(recipe, parts, run, accelerator, cached)
        if resumed:
            trainer.load_state_dict(checkpoint.load_state(run.state))
            _log.info("Going on with %s from step %d.", run.path, trainer.step)
        else:
            _log.info("Run %s", run.path)
        trainer.fit()
    except Stopped as stopped:
        raise Interrupted(
            f"Stopped by {stopped.name} between steps; what was saved before is in '{run.path}'.",
            f"Go on with `ccl train --resume {run.path}`.",
        ) from stopped
    finally:
        release(run)
    return run.path


@dataclass
class Seen:
    """What the workers found in the videos, by row of the training split."""

    states: dict[int, dict[str, str]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    def add(self, loaded: Loaded) -> None:
        """Take in one batch's findings."""
        self.states.update(loaded.states)
        self.unreadable.update(loaded.unreadable)


class Trainer:
    """One run's moving parts: distiller, optimiser, teachers, position."""

    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        run: RunFolder,
        accelerator: Accelerator,
        cached: Mapping[str, Cached] | None = None,
    ) -> None:
        self.recipe, self.parts, self.run, self.accelerator = recipe, parts, run, accelerator
        self.device = accelerator.device
        if self.device.type == "cpu":
            separate_blocks()
        self.use_caches(cached or {})
        memory_format = torch.channels_last_3d if recipe.train.channels_last else torch.contiguous_format
        student = parts.student
        if recipe.train.sync_batchnorm:
            share_statistics(student, self.device)
        if self.device.type == "cpu" and accelerator.mixed_precision == "bf16":
            pad_time_apart(student)
        student.to(memory_format=memory_format)  # type: ignore[call-overload]
        if recipe.train.compile:
            student.compile()
        self.bare = Distiller(
            student, parts.methods, recipe.clip, ce_weight=recipe.ce_weight, memory_format=memory_format
        )
        groups = parameter_groups(self.bare, recipe.optim)
        self.distiller, self.optimizer = accelerator.prepare(self.bare, sgd(groups, recipe.optim))
        self.step, self._seconds_before, self._began = 0, 0.0, time.perf_counter()
        sampler = self.sampler
        self.scheduler = scheduler(self.optimizer, recipe.optim, sampler.epochs, sampler.steps_per_epoch)
        self.meter, self.clock, self.seen = Meter(), Clock(), Seen()
        self.skipped, self.faults = Skipped(), TeacherFaults(len(parts.videos), self.device)

    def use_caches(self, cached: Mapping[str, Cached]) -> None:
        """Read these teachers' embeddings; run the others."""
        manifest, videos, seed = self.parts.manifest, self.parts.videos, self.recipe.train.seed
        self.cached = {name: CachedRows(each, manifest, videos, seed) for name, each in cached.items()}
        self.live = {
            name: teacher.to(self.device)
            for name, teacher in self.parts.teachers.items()
            if name not in cached
        }

    @property
    def seconds(self) -> float:
        """Time spent on this run so far, interruptions left out."""
        return self._seconds_before + time.perf_counter() - self._began

    @property
    def sampler(self) -> EpochSampler:
        """The batches that are still to come."""
        return _sampler(self.recipe, self.parts, self.step)

    def fit(self) -> None:
        """Train to the end, then publish the student."""
        sampler = self.sampler
        limit = self.recipe.train.max_steps
        last = min(sampler.total_steps, limit) if limit else sampler.total_steps
        if self.recipe.train.tracker != "none":
            start_tracker(self.accelerator, self.run.path)
        if is_main():
            self.run.truncate_metrics(self.step)
        with (
            stop_on_signal() as stop,
            Reporter("train", last, self.step) as reporter,
            jsonl_writer(self.run.path / METRICS) as write,
        ):
            for micro_batches in self._steps(sampler) if self.step < last else ():
                self._train_step(micro_batches)
                self._after_step(sampler, last, reporter, write)
                self._check_skipped(micro_batches)
                if self.step >= last:
                    break
                if any_process(stop.requested, self.device):
                    self._stop(stop)
        self._publish(done=self.step >= sampler.total_steps)

    def _steps(self, sampler: EpochSampler) -> Iterator[list[Loaded]]:
        """This process's micro-batches, a step's worth at a time."""
        dataset = TrainingSet(
            self.parts.videos,
            self.recipe.clip,
            {name: teacher.preprocess for name, teacher in self.live.items()},
            self.recipe.train.seed,
        )
        loader = training_loader(
            dataset,
            sampler,
            workers=self.recipe.train.workers,
            pin_memory=self.device.type == "cuda",
        )
        self.clock.restart()
        step: list[Loaded] = []
        # Saving takes all processes at the same step, so alone this one can only leave.
        with naming_lost_workers(f"go on with `ccl train --resume {self.run.path}`"):
            for loaded in self.clock.waiting(loader):
                if isinstance(loaded, CclError):
                    raise loaded
                step.append(loaded)
                if len(step) == sampler.accumulation:
                    yield step
                    step = []

    def _train_step(self, micro_batches: Sequence[Loaded]) -> None:
        # All randomness inside the networks is a function of (seed, step, rank): resuming needs no generator
        # state.
        seeds = np.random.SeedSequence([self.recipe.train.seed, self.step, self.accelerator.process_index])
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        self._set_lr()
        self.skipped.before(self.bare)
        share = 1 / len(micro_batches)
        figures = []
        for number, loaded in enumerate(micro_batches):
            self.seen.add(loaded)
            sync = number == len(micro_batches) - 1
            with nullcontext() if sync else self.accelerator.no_sync(self.distiller):
                figures.append(self._micro_step(loaded.batch.to(self.device), share))
        losses = [values["loss"] for values in figures]
        if all_finite(losses, self.bare.parameters(), self.accelerator.scaler):
            self.skipped.took()
            self._update()
            for values in figures:
                self.meter.add(values, share)
        else:
            self._skip()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cpu":
            keep_blocks()
        self.step += 1

    def _update(self) -> None:
        if self.recipe.optim.clip_norm:
            self.accelerator.clip_grad_norm_(self.bare.parameters(), self.recipe.optim.clip_norm)
        self.optimizer.step()

    def _skip(self) -> None:
        self.skipped.skip(self.bare)
        if self.skipped.total == 1:
            _log.warning(
                "Step %d is skipped: its loss or gradient is not finite. `skipped` counts such steps.",
                self.step + 1,
            )

    def _micro_step(self, batch: Batch, share: float) -> dict[str, Tensor]:
        with self.accelerator.autocast():
            embeddings = {
                name: embed(teacher, *batch.inputs[name], stages=self.parts.uses_stages)
                for name, teacher in self.live.items()
            }
        for name, rows in self.cached.items():
            embeddings[name] = rows.embedding(batch.rows, batch.epoch, self.device)
        embeddings = {
            name: self.faults.without(name, embedding, batch.rows) for name, embedding in embeddings.items()
        }
        with naming_single_values():
            output: StepOutput = self.distiller(batch, embeddings)
        self.accelerator.backward(output.loss * share)
        accuracy = (output.logits.argmax(dim=1) == batch.labels).float().mean()
        self.clock.clips += len(batch.labels)
        return {"loss": output.loss.detach(), "accuracy": accuracy, **output.parts}

    def _set_lr(self) -> None:
        self.scheduler.step_update(self.step)
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.base_values, strict=True):
            if not group["decays"]:
                group["lr"] = rate

    def _after_step(self, sampler: EpochSampler, last: int, reporter: Reporter, write: Any) -> None:
        train = self.recipe.train
        epoch_ends = self.step % sampler.steps_per_epoch == 0
        text = None
        if self.step % train.log_every == 0 or self.step == last:
            figures = self.meter.read() | self.clock.read() | {"skipped": self.skipped.total}
            text = figures_text(figures)
            epoch = -(-self.step // sampler.steps_per_epoch)
            write({"step": self.step, "epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"], **figures})
            self.accelerator.log(figures, step=self.step)
            self._check_unreadable()
            self.faults.check(self.parts.videos)
        reporter.advance(text=text)
        if epoch_ends or self.step == last:
            reporter.line()
        every = train.checkpoint_every
        if (every and self.step % every == 0) or (not every and epoch_ends) or self.step == last:
            self._save()

    def _check_skipped(self, micro_batches: Sequence[Loaded]) -> None:
        """End a run that does not get anywhere: too many steps skipped in a row, or all of an epoch's."""
        limit = min(self.recipe.train.max_skipped, self.sampler.steps_per_epoch)
        if self.skipped.in_a_row < limit:
            return
        rows = [row for loaded in micro_batches for row in loaded.batch.rows.tolist()]
        names = [self.parts.videos[row].id for some in gather_objects(rows) for row in some]
        path = self._save()
        raise CclError(
            f"The loss or its gradient was not finite in {self.skipped.in_a_row} steps in a row, up to step "
            f"{self.step}, whose batch was {listed(names, 16)}.",
            "Lower optim.lr, use --precision fp32, or look at these videos. The state, which they have "
            f"left as it was, is in '{path}'.",
        )

    def _check_finite(self) -> None:
        """Refuse to save or publish numbers that nobody can use."""
        student = self.bare.student
        used = [each for each in self.bare.parameters() if each.requires_grad] + list(student.buffers())
        if not all(bool(torch.isfinite(each).all()) for each in used):
            saved = f"; the last good state is in '{self.run.state}'" if self.run.state.is_dir() else ""
            raise CclError(
                f"The weights are not finite any more at step {self.step}.",
                f"Lower optim.lr or use --precision fp32{saved}.",
            )

    def _check_unreadable(self) -> None:
        unreadable: dict[int, str] = {}
        for found in gather_objects(self.seen.unreadable):
            unreadable |= found
        missing = len(self.parts.missing)
        check_unreadable(
            missing + len(unreadable),
            self.parts.manifest,
            "train",
            self.recipe.max_unreadable,
            [self.parts.videos[index] for index in unreadable],
        )

    def _stop(self, stop: StopRequest) -> None:
        path = self._save()
        raise Interrupted(
            f"Stopped by {stop.name} at step {self.step}; the state is in '{path}'.",
            f"Go on with `ccl train --resume {self.run.path}`.",
        )

    def _gathered_seen(self) -> Seen:
        seen = Seen()
        for states, unreadable in gather_objects((self.seen.states, self.seen.unreadable)):
            seen.states.update(states)
            seen.unreadable.update(unreadable)
        return seen

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to take the same steps."""
        scaler = self.accelerator.scaler
        seen = self._gathered_seen()
        return {
            "step": self.step,
            "manifest": self.parts.manifest.hash,
            "seconds": self.seconds,
            "distiller": self.bare.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "cached": {name: rows.cached.folder.name for name, rows in self.cached.items()},
            "meter": self.meter.state_dict(),
            "states": seen.states,
            "unreadable": seen.unreadable,
            "skipped": self.skipped.state_dict(),
            "faults": self.faults.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`.

        Raises:
            UsageError: files of the data set have changed, appeared or gone.
        """
        if state["manifest"] != self.parts.manifest.hash:
            raise UsageError(
                f"Files of the data set have changed since '{self.run.path}' began.",
                "Restore them, or start a new run.",
            )
        self._keep_to(state.get("cached", {}))  # before there were caches, nothing was read from one
        self.step, self._seconds_before = state["step"], state["seconds"]
        self.bare.load_state_dict(state["distiller"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.meter.load_state_dict(state["meter"], self.device)
        self.seen = Seen(state["states"], state["unreadable"])
        if "skipped" in state:  # of an earlier version there is nothing to go on with
            self.skipped.load_state_dict(state["skipped"])
            self.faults.load_state_dict(state["faults"])

    def _keep_to(self, before: Mapping[str, str]) -> None:
        """Read the caches that the run began with, and no others."""
        now = {name: rows.cached for name, rows in self.cached.items()}
        for name, folder in before.items():
            if name not in now or now[name].folder.name != folder:
                raise UsageError(
                    f"The run began with embeddings of {name} from the cache '{folder}', which is gone.",
                    "Build it again with `ccl cache build`, or start a new run.",
                )
        self.use_caches({name: now[name] for name in before})

    def _save(self) -> Path:
        self._check_finite()
        state = self.state_dict()
        path = self.run.state
        if is_main():
            path = checkpoint.save_state(self.run.state, self.step, state)
        barrier()
        return path

    def _publish(self, *, done: bool) -> None:
        self._check_finite()
        if self.skipped.total:
            _log.warning("%d of %d steps were skipped.", self.skipped.total, self.step)
        seen, faults = self._gathered_seen(), self.faults.rows()
        if is_main():
            manifest = self.parts.manifest
            save_model(
                self.run.model,
                self.bare.student,
                self.recipe,
                manifest.classes,
                manifest=manifest.hash,
                data=manifest.name,
                step=self.step,
                selection="last",
            )
            self.run.update_summary(self._summary(seen, faults) | {"finished": done, "evaluation": {}})
        barrier()  # no process may leave the group while another still talks
        if world_size() > 1:
            # Before the group, what wraps the model for it: whoever lets go of the group last waits for
            # threads of torch, and the wrapper keeps Python's lock, which one of them may be waiting for.
            self.distiller = self.bare
            self.accelerator.free_memory()
        self.accelerator.end_training()

    def _summary(self, seen: Seen, faults: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        parts, videos = self.parts, self.parts.videos
        return {
            "recipe": self.recipe.hash(),
            "method": self.recipe.method_label,
            "options": {name: self._changed_options(name) for name in parts.methods},
            "seed": self.recipe.train.seed,
            "steps": self.step,
            "skipped": self.skipped.total,
            "seconds": round(self.seconds, 1),
            "precision": self.accelerator.mixed_precision.replace("no", "fp32"),
            "processes": world_size(),
            "device": str(self.device),
            "data": {
                "name": parts.manifest.name,
                "manifest": parts.manifest.hash,
                "classes": len(parts.manifest.classes),
                "train": len(parts.manifest.split("train")),
                "seen": len(seen.states),
                "missing": [video.id for video in parts.missing],
                "unreadable": {videos[index].id: reason for index, reason in sorted(seen.unreadable.items())},
                "not_finite": {name: [videos[row].id for row in rows] for name, rows in faults.items()},
                "modalities": by_teacher(self._with_cached_states(seen)),
            },
            "teachers": {
                name: _teacher_record(teacher, self.cached.get(name))
                for name, teacher in parts.teachers.items()
            },
            "student": {"spec": self.recipe.student, "parameters": parameter_count(parts.student)},
            "versions": versions(),
        }

    def _with_cached_states(self, seen: Seen) -> dict[int, dict[str, str]]:
        """What became of each modality of the videos seen, those too that were not opened for it."""
        return {
            row: states | {rows.cached.header.kind: rows.state(row) for rows in self.cached.values()}
            for row, states in seen.states.items()
        }

    def _changed_options(self, name: str) -> dict[str, Any]:
        # Beside the recipe, so that a reader of the run can tell a default that was written out.
        options = method_options(type(self.parts.methods[name]), name, self.recipe.method[name])
        return options.model_dump(mode="json", exclude_defaults=True)


def _sampler(recipe: Recipe, parts: Parts, start: int) -> EpochSampler:
    """This process's batches from a step on."""
    return EpochSampler(
        videos=len(parts.videos),
        batch_size=recipe.train.batch_size,
        epochs=recipe.train.epochs,
        seed=recipe.train.seed,
        accumulation=recipe.train.accumulation,
        rank=rank(),
        processes=world_size(),
        start=start,
    )


def _teacher_record(teacher: Teacher, rows: CachedRows | None) -> dict[str, Any]:
    return {
        "variant": teacher.variant,
        "dim": teacher.dim,
        "fingerprint": teacher.fingerprint,
        "random_weights": teacher.random_weights,
        "sees_label": teacher.sees_label,
        "cached": rows.cached.header.key.views if rows else None,
    }
