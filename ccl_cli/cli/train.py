"""``ccl train``."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import examples, with_verbosity
from ccl_cli.errors import UsageError
from ccl_cli.utils import console

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "ccl train --teacher audio:cnn14 --teacher image:resnet34 --data ucf51",
        "ccl train --recipe smoke",
        "ccl train --recipe ucf51 --method crd",
        "ccl train --recipe ucf51 --set method.ccl.gradient=joint",
        "ccl train --recipe mine.yaml --num-processes 4 --precision bf16",
        "ccl train --resume runs/mine/20260101-120000-1a2b3c4d",
    )
)
@with_verbosity
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
    tracker: options.Tracker = None,
    set_: options.Overrides = None,
) -> None:
    """Train a video student with any number of frozen teachers.

    What decides a value, lowest first: defaults, recipe, flags you type, --set.
    """
    from ccl_cli.config.load import check_recipe, load_recipe
    from ccl_cli.utils.launch import launch, wanted

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
        "train.tracker": tracker,
    }
    resumed = Path(resume) if resume and resume != "auto" else None
    if resumed and not (resumed / "recipe.yaml").is_file():
        raise UsageError(f"'{resumed}' is not a run folder.", "Name one that `ccl train` made.")
    experiment = load_recipe(recipe or (str(resumed) if resumed else None), flags, set_ or ())
    check_recipe(experiment)
    if wanted(num_processes):
        raise typer.Exit(launch(num_processes, sys.argv[1:]))
    from ccl_cli.training.train import train as run

    folder = run(experiment, resume=resumed or resume, output=output, dry_run=dry_run)
    if console.first_process() and not dry_run:
        print(folder)
