"""``ccl teachers fit``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from ccl_cli.cli import options
from ccl_cli.cli.common import (
    complete_plugins,
    data_option,
    optimisation_option,
    output_option,
    print_path,
    runtime_option,
)
from ccl_cli.errors import UsageError

_log = logging.getLogger("ccl")

EXAMPLES = (
    "ccl teachers fit audio:small --data 'synthetic?labels=sounds'",
    "ccl teachers fit image:resnet34 --data folder:objects",
    "ccl train --teacher 'image:resnet34?weights=objects' --data folder:my_videos",
)


def fit(
    name: options.TeacherName,
    data: Annotated[
        str,
        data_option(
            metavar="SOURCE[:PATH]",
            help="Videos with labels for the teacher. The test split, else val, is held out.",
            autocompletion=complete_plugins("ccl.datasets"),
        ),
    ],
    output: Annotated[
        Path | None,
        output_option(
            metavar="FILE",
            help="Weights file (.safetensors) to write. Default: in the cache, for use with '?weights=DATA'.",
        ),
    ] = None,
    epochs: Annotated[int, optimisation_option(min=1, help="Number of passes over the training split.")] = 30,
    lr: Annotated[
        float | None,
        optimisation_option(help="Learning rate. Default: 0.003, or 0.0001 with pretrained weights."),
    ] = None,
    batch_size: Annotated[int, optimisation_option(min=2, help="Videos per step.")] = 32,
    seed: Annotated[int, optimisation_option(min=0, help="Random seed.")] = 0,
    workers: Annotated[int, runtime_option(min=0, help="Number of decoding processes.")] = 2,
    as_json: options.AsJson = False,
) -> None:
    """Train or fine-tune a teacher on its own modality, and save the weights for --teacher NAME@FILE.

    Starts from pretrained weights if there are any; '?weights=random' trains from scratch.
    """
    from ccl_cli.config.spec import parse_model
    from ccl_cli.training.fit_teacher import FitOptions, fit_teacher

    if lr is not None and not lr > 0:
        raise UsageError(f"--lr must be above 0, not {lr}.")
    spec = parse_model(name)
    report = fit_teacher(spec, data, output, FitOptions(epochs, lr, batch_size, seed, workers))
    for score in filter(None, [report.train, report.held_out]):
        _log.info("%s: accuracy %.1f %% on %d videos", score.split, 100 * score.accuracy, score.videos)
    how = f"--teacher {spec.label}@{report.path}"
    _log.info("%d classes, %.1f s; use it with %s", len(report.classes), report.seconds, how)
    print_path(report.path, as_json)
