"""``ccl teachers``: list, describe, get their weights, and train them for a domain."""

from __future__ import annotations

import inspect
import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccl_cli.cli import options, plugins
from ccl_cli.cli.common import (
    DATA,
    OPTIMISATION,
    OUTPUT,
    RUNTIME,
    complete_plugins,
    examples,
    group,
    with_verbosity,
)
from ccl_cli.errors import CclError, UsageError, WeightsError
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.config.spec import Spec
    from ccl_cli.registry import Plugin
    from ccl_cli.teachers import Teacher
    from ccl_cli.teachers.weights import WeightFile

_log = logging.getLogger("ccl")

app = group(
    "List, describe, download and fit teachers.",
    "ccl teachers ls",
    "ccl teachers info audio:cnn14",
    "ccl teachers pull image:resnet34",
    "ccl teachers fit audio:cnn14 --data folder:my_videos --output mine.safetensors",
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="MODALITY:NAME",
        help="Teacher, with its options if any, e.g. 'audio:cnn14?dim=2048'.",
        autocompletion=complete_plugins("ccl.teachers"),
    ),
]


@app.command("ls", epilog=examples("ccl teachers ls", "ccl teachers ls --load"))
def list_teachers(
    load: Annotated[bool, typer.Option("--load", help="Import each one to see whether it works.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """List teachers with the package each comes from."""
    plugins.show(["teachers"], load, as_json=as_json)


@app.command(
    "info", epilog=examples("ccl teachers info audio:cnn14", "ccl teachers info 'audio:cnn14?dim=2048'")
)
def info(name: Name) -> None:
    """Show a teacher's modality, width, options and weight files."""
    plugin, cls, spec = _resolve(name)
    files = cls.weight_files(spec)
    rows = [
        ("teacher", spec.label),
        ("package", plugin.origin),
        ("class", plugin.value),
        ("modality", spec.kind),
        ("dim", _dim(cls, spec)),
        *(row for file in files for row in _file_rows(file, spec)),
    ]
    for key, value in rows:
        print(f"{key:<9} {value}")
    print(f"\n{inspect.getdoc(cls)}")


@app.command("pull", epilog=examples("ccl teachers pull audio:cnn14"))
def pull(name: Name) -> None:
    """Download a teacher's published weights into the cache, with a checksum."""
    from ccl_cli.teachers import weights

    _, cls, spec = _resolve(name)
    files = cls.weight_files(spec)
    if not files:
        _log.info("%s needs no published weights.", spec.label)
    for file in files:
        _log.info("%s from %s (%s)", file.filename, file.address, file.licence or "no licence stated")
        try:
            with bar(file.filename) as progress:
                print(weights.pull(file, progress))
        except WeightsError as error:
            if error.hint and len(files) > 1:
                error.hint += f" All {len(files)} files: `ccl teachers info {shlex.quote(str(spec))}`."
            raise


@app.command(
    "fit",
    epilog=examples(
        "ccl teachers fit audio:small --data 'synthetic?labels=sounds'",
        "ccl teachers fit image:resnet34 --data folder:objects",
        "ccl train --teacher 'image:resnet34?weights=objects' --data folder:my_videos",
    ),
)
@with_verbosity
def fit(
    name: Name,
    data: Annotated[
        str,
        typer.Option(
            metavar="SOURCE[:PATH]",
            help="Videos with the teacher's own labels; the test split (else val) is held out.",
            rich_help_panel=DATA,
            autocompletion=complete_plugins("ccl.datasets"),
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The weights, .safetensors; default in the cache, where '?weights=DATA' finds them.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training split.", rich_help_panel=OPTIMISATION)
    ] = 30,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate; default 0.003, or 0.0001 where weights are there.",
            rich_help_panel=OPTIMISATION,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=2, help="Videos per step.", rich_help_panel=OPTIMISATION)
    ] = 32,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of everything random.", rich_help_panel=OPTIMISATION)
    ] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Decoding processes.", rich_help_panel=RUNTIME)] = 2,
) -> None:
    """Train a teacher on its own modality and labels, and save weights for --teacher NAME@FILE.

    It starts from its weights; from nothing with '?weights=random', or where nobody publishes any.
    """
    from ccl_cli.config.spec import parse_model
    from ccl_cli.training.fit_teacher import FitOptions
    from ccl_cli.training.fit_teacher import fit as run

    if lr is not None and not lr > 0:
        raise UsageError(f"--lr must be above 0, not {lr}.")
    spec = parse_model(name)
    report = run(spec, data, output, FitOptions(epochs, lr, batch_size, seed, workers))
    for score in filter(None, [report.train, report.held_out]):
        _log.info("%s: %.1f %% of %d videos right", score.split, 100 * score.accuracy, score.videos)
    _log.info(
        "%d classes, %.1f s; use it with --teacher %s@%s",
        len(report.classes),
        report.seconds,
        spec.label,
        report.path,
    )
    print(report.path)


def _resolve(name: str) -> tuple[Plugin, type[Teacher], Spec]:
    from ccl_cli import registry
    from ccl_cli.config.spec import parse_model

    spec = parse_model(name)
    plugin = registry.find(registry.TEACHERS, spec.label)
    return plugin, registry.load(plugin), spec


def _dim(cls: type[Teacher], spec: Spec) -> str:
    """The embedding's width, from a network without storage."""
    import torch

    from ccl_cli.config.spec import Spec

    try:
        with torch.device("meta"):
            return str(
                cls.from_spec(Spec(spec.kind, spec.name, None, spec.options | {"weights": "random"})).dim
            )
    except Exception as error:  # a plugin need not know weights=random
        _log.debug("%s cannot be built without weights: %s", spec.label, error)
        return "known once its weights are here"


def _file_rows(file: WeightFile, spec: Spec) -> Iterator[tuple[str, str]]:
    from ccl_cli.teachers.weights import locate

    try:
        where = f"{locate(spec, file)}"
    except CclError:
        where = f"not here yet; `ccl teachers pull '{spec}'` puts it at {file.path}"
    yield "weights", file.filename
    yield "", where
    yield "", f"{file.address}"
    yield "", ", ".join(filter(None, [file.licence, file.note]))


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar for what is being downloaded, on a terminal."""
    if console.plain(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
