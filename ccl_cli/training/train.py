"""``ccl train``: start a run of a recipe, or resume a run."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ccl_cli.config.recipe import Recipe
from ccl_cli.errors import Interrupted, RecipeError, SystemSetupError
from ccl_cli.training.batches import batch_sampler
from ccl_cli.training.build import build
from ccl_cli.training.cache.read import open_caches
from ccl_cli.training.compute.device import set_up
from ccl_cli.training.dry_run import data_line, describe
from ccl_cli.training.held_out import Score
from ccl_cli.training.run import checkpoint
from ccl_cli.training.run.open_run import open_run, release
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
    """Train; see :func:`ccl_cli.train` for the arguments and the errors.

    ``score`` evaluates a student on held-out videos; it is required if ``train.eval_every`` is set.
    """
    need_trackers(recipe.train.trackers)
    parts = build(recipe)
    if dry_run:
        if first_process():
            print(describe(recipe, parts))
        return Path()
    accelerator = set_up(recipe.train.precision)
    batch_sampler(recipe, parts)  # checks the batch size before anything is written
    run, resumed = on_main(lambda: open_run(recipe, parts.manifest, resume, output))
    try:
        cached = open_caches(recipe, parts, accelerator)
        trainer = Trainer(recipe, parts, run, accelerator, cached, score)
        if resumed:
            newest = on_main(lambda: checkpoint.newest_state(run.checkpoints))
            checkpoint.load_state_dict(trainer, checkpoint.read_state(newest))
            _log.info("Resuming %s at step %d.", run.path, trainer.step)
        else:
            _log.info("Run %s", run.path)
        _log.info("%s", data_line(parts))
        with tracking(accelerator, recipe, run):
            trainer.fit()
    except Stopped as stopped:
        raise Interrupted(
            f"Stopped by {stopped.name} without saving; earlier checkpoints are in '{run.path}'.",
            f"Continue with `ccl train --resume {run.path}`.",
        ) from stopped
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise RecipeError(
            "One clip of this size leaves one value per channel, too few for batch normalisation.",
            "Raise train.batch_size above 1 for each process and micro-batch, or clip.size.",
        ) from error
    except torch.OutOfMemoryError as error:
        raise SystemSetupError(
            f"A batch of {recipe.train.batch_size} clips does not fit into the GPU's memory.",
            "Add --precision bf16, --set train.recompute=true (the same step), or "
            "--set train.accumulation=2 (the same batch in parts, each contrasted by itself).",
        ) from error
    finally:
        release(run)
    return run.path
