"""``ccl eval``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, print_result, start_processes
from ccl_cli.utils import console

app = typer.Typer(add_completion=False)
_log = logging.getLogger("ccl")

_LABELS = {
    **{"top1": "top-1", "top5": "top-5", "mean_class": "mean of classes"},
    **{"r1": "R@1", "r5": "R@5", "r10": "R@10", "map": "mAP"},
    **{"knn": "kNN", "linear": "linear", "chance": "chance"},
}


@command(
    app,
    "eval",
    "ccl eval                             newest run, recognition and retrieval",
    "ccl eval --retrieval",
    "ccl eval --probe --data folder:other_videos",
    "ccl eval runs/mine/20260101-120000-1a2b3c4d --per-class",
    "ccl eval --weights raw                last weights, not the moving average",
    "ccl eval --json > result.json",
)
def evaluate(
    run: options.Run = None,
    recognition: Annotated[
        bool, typer.Option("--recognition", help="Evaluate classification accuracy.")
    ] = False,
    retrieval: Annotated[
        bool, typer.Option("--retrieval", help="Evaluate retrieval of training videos by test videos.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Evaluate kNN and linear probes on the features.")
    ] = False,
    data: options.Data = None,
    split: options.Split = "test",
    weights: Annotated[
        Literal["ema", "raw"] | None,
        typer.Option("--weights", help="Weights of a run with train.ema. Default: the published weights."),
    ] = None,
    batch_size: options.ClipBatchSize = None,
    precision: options.ForwardPrecision = "fp32",
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate a trained student on recognition, retrieval and probes.

    Runs recognition and retrieval by default. Unreadable videos count as errors. All results are in percent.
    """
    start_processes(num_processes)
    from ccl_cli.evaluation.evaluate import evaluate as run_evaluation
    from ccl_cli.evaluation.evaluate import is_tracked
    from ccl_cli.training.run.folder import SUMMARY

    flags = {"recognition": recognition, "retrieval": retrieval, "probe": probe}
    if per_class and any(flags.values()):
        flags["recognition"] = True  # classes have accuracies only
    result = run_evaluation(
        run,
        tasks={task for task, flag in flags.items() if flag} or None,
        data=data,
        split=split,
        weights=weights,
        batch_size=batch_size,
        precision=precision,
        workers=workers,
    )
    print_result(result, as_json, lambda: _print(result, per_class))
    folder = Path(result["model"]).parent
    if data is None and console.first_process() and is_tracked(result):
        from ccl_cli.report.figures.trackers import track_figures

        track_figures(folder, split)
    if (folder / SUMMARY).is_file():
        _log.info("Next: `ccl report html %s%s`", folder, "" if split == "test" else f" --split {split}")


def _print(result: Mapping[str, Any], per_class: bool) -> None:
    for task in ("recognition", "retrieval", "probe"):
        figures = result.get(task, {})
        rows = [(label, f"{figures[key]:.2f}") for key, label in _LABELS.items() if key in figures]
        if rows:
            console.print_table([task, "%"], rows)
    classes = result.get("recognition", {}).get("per_class", {})
    if per_class and classes:
        class_rows = [(name, f"{row['top1']:.2f}", str(row["videos"])) for name, row in classes.items()]
        console.print_table(["class", "top-1 %", "videos"], class_rows)
