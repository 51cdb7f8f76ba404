"""``ccl train``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, print_path, print_result, start_processes
from ccl_cli.errors import CclError

if TYPE_CHECKING:
    from ccl_cli.config.recipe import Recipe

app = typer.Typer(add_completion=False)
_log = logging.getLogger("ccl")


@command(
    app,
    "train",
    "ccl train --teacher audio:cnn14 --teacher image:resnet34 --data ucf51",
    "ccl train --recipe smoke",
    "ccl train --recipe ucf51 --method crd",
    "ccl train --recipe ucf51 --set method.ccl.gradient=joint",
    "ccl train --recipe mine.yaml --num-processes 4 --precision bf16",
    "ccl train --resume runs/mine/20260101-120000-1a2b3c4d",
)
def train(
    recipe: options.RecipeName = None,
    data: options.Data = None,
    teacher: options.Teachers = None,
    student: options.Student = None,
    method: options.Method = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.LearningRate = None,
    optimizer: options.Optimizer = None,
    schedule: options.Schedule = None,
    max_steps: options.MaxSteps = None,
    seed: options.Seed = None,
    precision: options.Precision = None,
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    resume: options.Resume = None,
    dry_run: options.DryRun = False,
    name: options.Name = None,
    output: options.Output = None,
    tracker: options.Trackers = None,
    set_: options.Overrides = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a video student with any number of frozen teachers.

    Precedence of values, lowest first: defaults, recipe, options, --set.
    """
    from ccl_cli.config.load import load_recipe
    from ccl_cli.training.run.folder import find_run

    flags = {
        "name": name,
        "data": data,
        "teachers": teacher,
        "student": student,
        "method": method,
        "optim.lr": lr,
        "optim.name": optimizer,
        "optim.schedule": schedule,
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "train.max_steps": max_steps,
        "train.seed": seed,
        "train.precision": precision,
        "train.workers": workers,
        "train.trackers": tracker,
    }
    resumed = find_run(Path(resume)).path if resume and resume != "auto" else None
    experiment = load_recipe(recipe or (str(resumed) if resumed else None), flags, set_ or ())
    _start(experiment, num_processes, dry_run=dry_run)
    from ccl_cli.evaluation.while_training import train as run

    folder = run(experiment, resume=resumed or resume, output=output, dry_run=dry_run)
    if dry_run:
        print_result({"path": None}, as_json, lambda: None)
    else:
        print_path(folder, as_json)
        _log.info("Next: `ccl eval %s`", folder)


def _start(recipe: Recipe, num_processes: int, *, dry_run: bool) -> None:
    """Check the recipe, and start the processes of the run."""
    from ccl_cli.config.load import check_recipe
    from ccl_cli.utils.processes.launch import must_launch

    # The server of the processes that read videos starts first: it imports while this process imports, too.
    if recipe.train.workers and not dry_run and not must_launch(num_processes):
        with suppress(CclError):  # of an unknown teacher; the check of the recipe names all errors
            _start_server(recipe.teachers)
    check_recipe(recipe)
    start_processes(num_processes)


def _start_server(teachers: Sequence[str]) -> None:
    from ccl_cli import registry
    from ccl_cli.config.spec import parse_model
    from ccl_cli.data.clips.workers import start_server

    plugins = [registry.find(registry.TEACHERS, parse_model(text).label) for text in teachers]
    start_server(plugin.value.partition(":")[0] for plugin in plugins)
