"""``ccl train``: a recipe becomes a run, or a run is resumed."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import CclError, Interrupted, SystemSetupError, UsageError
from ccl_cli.training.batches import batch_sampler
from ccl_cli.training.build import build
from ccl_cli.training.cache.caching import open_caches
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.dry_run import data_line, describe
from ccl_cli.training.held_out import Score
from ccl_cli.training.run import checkpoint
from ccl_cli.training.run.open_run import open_run, release
from ccl_cli.training.run.state import load_state_dict
from ccl_cli.training.run.trackers import need_trackers, tracking
from ccl_cli.training.trainer import Trainer
from ccl_cli.utils.console import first_process
from ccl_cli.utils.distributed import on_main
from ccl_cli.utils.signals import Stopped

_log = logging.getLogger("ccl")


def train(
    recipe: Recipe,
    *,
    resume: Path | str | None = None,
    output: Path | None = None,
    dry_run: bool = False,
    score: Score | None = None,
) -> Path:
    """Train as ``ccl_cli.train`` does.

    Args:
        recipe: As there.
        resume: As there.
        output: As there.
        dry_run: As there.
        score: Evaluates a student on held-out videos; None: the recipe must not want it.

    Raises:
        CclError: as there.
    """
    if recipe.train.eval_every and score is None:
        raise UsageError("train.eval_every needs somebody who scores.", "Call ccl_cli.train, which does.")
    need_trackers(recipe.train.trackers)
    parts = build(recipe)
    if dry_run:
        if first_process():
            print(describe(recipe, parts))
        return Path()
    accelerator = set_up(recipe.train.precision)
    batch_sampler(recipe, parts)  # refuses a batch that cannot be split before anything is written
    run, resumed = on_main(lambda: open_run(recipe, parts.manifest, resume, output))
    try:
        cached = open_caches(recipe, parts, accelerator)
        trainer = Trainer(recipe, parts, run, accelerator, cached, score)
        if resumed:
            state = checkpoint.load_state(on_main(lambda: checkpoint.newest_state(run.state)))
            load_state_dict(trainer, state)
            _log.info("Going on with %s from step %d.", run.path, trainer.step)
        else:
            _log.info("Run %s", run.path)
        _log.info("%s", data_line(parts))
        with tracking(accelerator, recipe, run):
            trainer.fit()
    except Stopped as stopped:
        raise Interrupted(
            f"Stopped by {stopped.name} without saving; what was saved before is in '{run.path}'.",
            f"Go on with `ccl train --resume {run.path}`.",
        ) from stopped
    except torch.OutOfMemoryError as error:
        raise _does_not_fit(recipe) from error
    finally:
        release(run)
    return run.path


def _does_not_fit(recipe: Recipe) -> CclError:
    """With what keeps the step: the same batch in smaller parts, or fewer activations."""
    train, steps = recipe.train, []
    if train.precision == "fp32":
        steps.append("--precision bf16")
    if not train.recompute:
        steps.append("--set train.recompute=true (the same step)")
    parts = 2 * train.accumulation
    steps.append(
        f"--set train.accumulation={parts} (the same batch in {parts} parts, each contrasted by itself)"
    )
    return SystemSetupError(
        f"A batch of {train.batch_size} clips does not fit into the GPU's memory.",
        f"Add {' or '.join(steps)}.",
    )
