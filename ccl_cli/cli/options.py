"""The options that commands share, each declared once; None stands for a flag that was not typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ccl_cli.cli.common import (
    complete_plugins,
    complete_recipes,
    data_option,
    optimisation_option,
    output_option,
    runtime_option,
    teacher_option,
)

RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "--config",
        metavar="NAME|FILE",
        help="Built-in recipe or YAML file; $CCL_RECIPE if not given. Flags override it.",
        autocompletion=complete_recipes,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any recipe value, e.g. optim.lr=0.01; beats all flags."),
]
Data = Annotated[
    str | None,
    data_option(
        metavar="SOURCE[:PATH]",
        help="Data set, e.g. ucf51 or folder:my_videos.",
        autocompletion=complete_plugins("ccl.datasets"),
    ),
]
Teachers = Annotated[
    list[str] | None,
    teacher_option(
        "--teacher",
        metavar="MODALITY:NAME",
        help="Frozen teacher, e.g. audio:cnn14; repeat it for more.",
        autocompletion=complete_plugins("ccl.teachers"),
    ),
]
RecipeData = Annotated[
    str | None,
    typer.Argument(
        metavar="[SOURCE[:PATH]]",
        help="Data set; default the recipe's.",
        autocompletion=complete_plugins("ccl.datasets"),
    ),
]
TeacherName = Annotated[
    str,
    typer.Argument(
        metavar="MODALITY:NAME",
        help="Teacher, with its options if any, e.g. 'audio:cnn14?dim=2048'.",
        autocompletion=complete_plugins("ccl.teachers"),
        show_default=False,
    ),
]
Student = Annotated[
    str | None,
    teacher_option(
        metavar="NAME", help="Video network to train.", autocompletion=complete_plugins("ccl.students")
    ),
]
Method = Annotated[
    str | None,
    teacher_option(
        metavar="NAME[+NAME]",
        help="Distillation method, with its published options.",
        autocompletion=complete_plugins("ccl.methods"),
    ),
]
Epochs = Annotated[int | None, optimisation_option(help="Passes over the training split.")]
BatchSize = Annotated[int | None, optimisation_option(help="Videos per step, over all processes.")]
LearningRate = Annotated[float | None, optimisation_option("--lr", help="Learning rate.")]
Optimizer = Annotated[
    str | None,
    optimisation_option(metavar="NAME", help="Optimiser by timm's name: sgd, adamw, lamb, ..."),
]
Schedule = Annotated[
    Literal["step", "cosine", "linear", "constant"] | None,
    optimisation_option(help="How the learning rate changes."),
]
MaxSteps = Annotated[int | None, optimisation_option(help="Stop after so many steps.")]
Seed = Annotated[int | None, optimisation_option(help="Seed of everything random.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"] | None, runtime_option(help="auto: bf16 on a GPU that has it.")
]
Workers = Annotated[int | None, runtime_option(help="Decoding processes.")]
NumProcesses = Annotated[int, runtime_option(min=1, metavar="N", help="Start N processes, one per GPU.")]
Executor = Annotated[
    str | None,
    runtime_option(
        "--executor",
        metavar="NAME",
        help="Who does the work: local, slurm, or another package's; set how by CCL_EXECUTOR_....",
        autocompletion=complete_plugins("ccl.executors"),
    ),
]
Part = Annotated[
    str | None, runtime_option("--part", metavar="I/N", help="Do the I-th of N parts only, from 1/N to N/N.")
]
Run = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="A run's folder or a model file; default the newest run.")
]
RunAndVideos = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN|PATH",
        help="Video files, and folders of them at any depth; before them the run's folder or the model file "
        "to use, default the newest run.",
        show_default=False,
    ),
]
Resume = Annotated[
    str | None,
    runtime_option(
        metavar="RUN|auto", help="Go on with a run; auto: the newest unfinished one of this recipe."
    ),
]
DryRun = Annotated[bool, runtime_option("--dry-run", help="Build all, read one batch, train nothing.")]
AsJson = Annotated[bool, output_option("--json", help="Print one JSON document and nothing else.")]
PerClass = Annotated[bool, output_option("--per-class", help="Show each class too.")]
Name = Annotated[str | None, output_option(help="Name of the run.")]
Output = Annotated[
    Path | None, output_option(metavar="DIR", help="The run's folder; default runs/NAME/TIME-HASH.")
]
Trackers = Annotated[
    list[str] | None,
    output_option(
        "--tracker", metavar="NAME", help="Log there too: tensorboard, wandb, mlflow, ...; repeatable."
    ),
]
Split = Annotated[Literal["test", "val"], data_option(help="Which videos.")]
ClipBatchSize = Annotated[int | None, runtime_option("--batch-size", min=1, help="Clips per forward pass.")]
ForwardPrecision = Annotated[
    Literal["fp32", "bf16", "fp16"], runtime_option("--precision", help="Arithmetic.")
]
Load = Annotated[bool, typer.Option("--load", help="Import each one to see whether it works.")]
Seeds = Annotated[str | None, optimisation_option(metavar="N|A,B,C", help="How many seeds, or which.")]
