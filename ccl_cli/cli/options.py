"""The options that commands share, each declared once; None stands for a flag that was not typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ccl_cli.cli.common import (
    DATA,
    OPTIMISATION,
    OUTPUT,
    RUNTIME,
    TEACHERS,
    complete_plugins,
    complete_recipes,
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
    typer.Option(
        metavar="SOURCE[:PATH]",
        help="Data set, e.g. ucf51 or folder:my_videos.",
        rich_help_panel=DATA,
        autocompletion=complete_plugins("ccl.datasets"),
    ),
]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        metavar="MODALITY:NAME",
        help="Frozen teacher, e.g. audio:cnn14; repeat it for more.",
        rich_help_panel=TEACHERS,
        autocompletion=complete_plugins("ccl.teachers"),
    ),
]
Student = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Video network to train.",
        rich_help_panel=TEACHERS,
        autocompletion=complete_plugins("ccl.students"),
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[+NAME]",
        help="Distillation method, with its published options.",
        rich_help_panel=TEACHERS,
        autocompletion=complete_plugins("ccl.methods"),
    ),
]
Epochs = Annotated[
    int | None, typer.Option(help="Passes over the training split.", rich_help_panel=OPTIMISATION)
]
BatchSize = Annotated[
    int | None, typer.Option(help="Videos per step, over all processes.", rich_help_panel=OPTIMISATION)
]
LearningRate = Annotated[
    float | None, typer.Option("--lr", help="Learning rate.", rich_help_panel=OPTIMISATION)
]
Optimizer = Annotated[
    str | None,
    typer.Option(
        help="Optimiser by timm's name: sgd, adamw, lamb, ...", rich_help_panel=OPTIMISATION, metavar="NAME"
    ),
]
Schedule = Annotated[
    Literal["step", "cosine", "linear", "constant"] | None,
    typer.Option(help="How the learning rate changes.", rich_help_panel=OPTIMISATION),
]
MaxSteps = Annotated[int | None, typer.Option(help="Stop after so many steps.", rich_help_panel=OPTIMISATION)]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.", rich_help_panel=OPTIMISATION)]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"] | None,
    typer.Option(help="auto: bf16 on a GPU that has it.", rich_help_panel=RUNTIME),
]
Workers = Annotated[int | None, typer.Option(help="Decoding processes.", rich_help_panel=RUNTIME)]
NumProcesses = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Start N processes, one per GPU.", rich_help_panel=RUNTIME),
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|auto",
        help="Go on with a run; auto: the newest unfinished one of this recipe.",
        rich_help_panel=RUNTIME,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Build all, read one batch, train nothing.", rich_help_panel=RUNTIME),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=OUTPUT)]
PerClass = Annotated[bool, typer.Option("--per-class", help="Show each class too.", rich_help_panel=OUTPUT)]
Name = Annotated[str | None, typer.Option(help="Name of the run.", rich_help_panel=OUTPUT)]
Output = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The run's folder; default runs/NAME/TIME-HASH.", rich_help_panel=OUTPUT
    ),
]
Tracker = Annotated[
    Literal["none", "tensorboard"] | None,
    typer.Option(help="A further log besides metrics.jsonl.", rich_help_panel=OUTPUT),
]
Videos = Annotated[
    list[Path],
    typer.Argument(metavar="PATH", help="Video files, and folders of them at any depth.", show_default=False),
]
Model = Annotated[
    Path | None,
    typer.Option(metavar="RUN|FILE", help="A run's folder or a model file; default the newest run."),
]
WindowsAtOnce = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Windows per forward pass.", rich_help_panel=RUNTIME),
]
ForwardPrecision = Annotated[
    Literal["fp32", "bf16", "fp16"],
    typer.Option("--precision", help="Arithmetic.", rich_help_panel=RUNTIME),
]
RowFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="Write to a file, as its name ends: .csv, .json or .jsonl.",
        rich_help_panel=OUTPUT,
    ),
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per video, a line each.", rich_help_panel=OUTPUT)
]
