"""Options shared by several commands. None means that the user did not give the option."""

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
    plugin_argument,
    runtime_option,
    teacher_option,
)

RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "--config",
        metavar="NAME|FILE",
        help="Built-in recipe or YAML file. Default: $CCL_RECIPE. Options override its values.",
        autocompletion=complete_recipes,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a recipe value, e.g. optim.lr=0.01. Takes precedence over all other options.",
    ),
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
        help="Frozen teacher, e.g. audio:cnn14. Repeatable.",
        autocompletion=complete_plugins("ccl.teachers"),
    ),
]
RecipeData = Annotated[
    str | None,
    typer.Argument(
        metavar="[SOURCE[:PATH]]",
        help="Data set. Default: the recipe's.",
        autocompletion=complete_plugins("ccl.datasets"),
    ),
]
TeacherName = Annotated[
    str,
    plugin_argument(
        "ccl.teachers", "Teacher, with optional settings, e.g. 'audio:cnn14?dim=2048'.", "MODALITY:NAME"
    ),
]
Student = Annotated[
    str | None,
    teacher_option(
        metavar="NAME", help="Student network to train.", autocompletion=complete_plugins("ccl.students")
    ),
]
Method = Annotated[
    str | None,
    teacher_option(
        metavar="NAME[+NAME]",
        help="Distillation method, with its published settings.",
        autocompletion=complete_plugins("ccl.methods"),
    ),
]
Epochs = Annotated[int | None, optimisation_option(help="Number of passes over the training split.")]
BatchSize = Annotated[int | None, optimisation_option(help="Videos per step, summed over all processes.")]
LearningRate = Annotated[float | None, optimisation_option("--lr", help="Learning rate.")]
Optimizer = Annotated[
    str | None,
    optimisation_option(metavar="NAME", help="Optimiser, by its name in timm: sgd, adamw, lamb, ..."),
]
Schedule = Annotated[
    Literal["step", "cosine", "linear", "constant"] | None,
    optimisation_option(metavar="NAME", help="Learning rate schedule: step, cosine, linear or constant."),
]
MaxSteps = Annotated[int | None, optimisation_option(help="Stop after this number of steps.")]
Seed = Annotated[int | None, optimisation_option(help="Random seed.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"] | None,
    runtime_option(
        metavar="NAME", help="auto, fp32, bf16 or fp16. auto: bf16 on GPUs that support it, else fp32."
    ),
]
Workers = Annotated[int | None, runtime_option(min=0, help="Number of decoding processes.")]
NumProcesses = Annotated[int, runtime_option(min=1, metavar="N", help="Start N processes, one per GPU.")]
Executor = Annotated[
    str | None,
    runtime_option(
        "--executor",
        metavar="NAME",
        help="Where to run the work: local, slurm, ray, or a plugin. CCL_EXECUTOR_... variables set it up.",
        autocompletion=complete_plugins("ccl.executors"),
    ),
]
Part = Annotated[
    str | None, runtime_option("--part", metavar="I/N", help="Process only part I of N, from 1/N to N/N.")
]
Run = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="Run folder or model file. Default: the newest run.")
]
RunAndVideos = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN|PATH",
        help="Video files and folders, searched recursively. Put the run folder or model file to use "
        "before them; default: the newest run.",
        show_default=False,
    ),
]
Resume = Annotated[
    str | None,
    runtime_option(
        metavar="RUN|auto", help="Resume a run; auto resumes the newest unfinished run of this recipe."
    ),
]
DryRun = Annotated[
    bool, runtime_option("--dry-run", help="Build everything and read one batch, but do not train.")
]
AsJson = Annotated[bool, output_option("--json", help="Print the result as one JSON document.")]
PerClass = Annotated[bool, output_option("--per-class", help="Also show results per class.")]
Name = Annotated[str | None, output_option(help="Name of the experiment and of its folder.")]
Output = Annotated[
    Path | None, output_option(metavar="DIR", help="Run folder. Default: runs/NAME/TIME-HASH.")
]
Trackers = Annotated[
    list[str] | None,
    output_option(
        "--tracker",
        metavar="NAME",
        help="Also log to this tracker: tensorboard, wandb, mlflow, ... Repeatable.",
    ),
]
Split = Annotated[Literal["test", "val"], data_option(help="Split to use.")]
ClipBatchSize = Annotated[int | None, runtime_option("--batch-size", min=1, help="Clips per forward pass.")]
ForwardPrecision = Annotated[
    Literal["fp32", "bf16", "fp16"], runtime_option("--precision", help="Precision of the forward pass.")
]
Load = Annotated[bool, typer.Option("--load", help="Import each plugin to check that it works.")]
Seeds = Annotated[
    str | None, optimisation_option(metavar="N|A,B,C", help="Number of seeds, or a list of seeds.")
]
