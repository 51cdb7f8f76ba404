"""``ccl eval``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import DATA, RUNTIME, examples, with_verbosity
from ccl_cli.utils import console

app = typer.Typer(add_completion=False)

_LABELS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class": "mean of classes",
    "r1": "R@1",
    "r5": "R@5",
    "r10": "R@10",
    "map": "mAP",
}


@app.command(
    epilog=examples(
        "ccl eval                             newest run, both tasks",
        "ccl eval --retrieval",
        "ccl eval runs/mine/20260101-120000-1a2b3c4d --per-class",
        "ccl eval --json > result.json",
    )
)
@with_verbosity
def evaluate(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run's folder; the newest if none is named.")
    ] = None,
    recognition: Annotated[bool, typer.Option("--recognition", help="Class accuracy.")] = False,
    retrieval: Annotated[bool, typer.Option("--retrieval", help="Test videos find training videos.")] = False,
    data: options.Data = None,
    split: Annotated[str, typer.Option(help="Split to evaluate.", rich_help_panel=DATA)] = "test",
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Windows per forward pass.", rich_help_panel=RUNTIME)
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], typer.Option(help="Arithmetic.", rich_help_panel=RUNTIME)
    ] = "fp32",
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate a trained student: recognition and retrieval, in percent.

    Both tasks unless one is named. Videos that cannot be read count as errors.
    """
    from ccl_cli.utils.launch import launch, wanted

    if wanted(num_processes):
        raise typer.Exit(launch(num_processes, sys.argv[1:]))
    from ccl_cli.evaluation.evaluate import evaluate as run_evaluation

    named = {"recognition": recognition, "retrieval": retrieval}
    result = run_evaluation(
        run,
        tasks={task for task, wanted in named.items() if wanted} or set(named),
        data=data,
        split=split,
        batch_size=batch_size,
        precision=precision,
        workers=workers,
    )
    if not console.first_process():
        return
    if as_json:
        print(json.dumps(result))
    else:
        _show(result, per_class)


def _show(result: Mapping[str, Any], per_class: bool) -> None:
    for task in ("recognition", "retrieval"):
        figures = result.get(task, {})
        shown = [(label, f"{figures[key]:.2f}") for key, label in _LABELS.items() if key in figures]
        if shown:
            console.print_table([task, "%"], shown)
    classes = result.get("recognition", {}).get("per_class", {})
    if per_class:
        rows = [(name, f"{row['top1']:.2f}", str(row["videos"])) for name, row in classes.items()]
        console.print_table(["class", "top-1 %", "videos"], rows)
