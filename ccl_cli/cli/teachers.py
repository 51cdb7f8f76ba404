"""``ccl teachers``: list, describe, download, probe and fine-tune teachers."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ccl_cli import registry
from ccl_cli.cli import options
from ccl_cli.cli.catalogue.listing import print_plugin, print_plugins
from ccl_cli.cli.common import (
    command,
    complete_plugins,
    data_option,
    group,
    optimisation_option,
    output_option,
    print_path,
    print_paths,
    print_result,
    runtime_option,
    start_processes,
)
from ccl_cli.errors import UsageError, WeightsError
from ccl_cli.utils import console

if TYPE_CHECKING:
    from ccl_cli.config.spec import Spec
    from ccl_cli.registry import Plugin
    from ccl_cli.teachers import Teacher

_MAX_NAMES = 40  # class names per verdict without --per-class
_log = logging.getLogger("ccl")

app = group(
    "List, describe, download, probe and fine-tune teachers.",
    "ccl teachers ls",
    "ccl teachers info audio:cnn14",
    "ccl teachers pull image:resnet34",
    "ccl teachers probe --data ucf51 --teacher audio:cnn14",
    "ccl teachers fit audio:cnn14 --data folder:my_videos --output mine.safetensors",
)


@command(app, "ls", "ccl teachers ls", "ccl teachers ls --load", "ccl teachers ls --json")
def list_teachers(load: options.Load = False, as_json: options.AsJson = False) -> None:
    """List teachers and their packages."""
    print_plugins([registry.TEACHERS], load, as_json)


@command(app, "info", "ccl teachers info audio:cnn14", "ccl teachers info 'audio:cnn14?dim=2048'")
def info(name: options.TeacherName, as_json: options.AsJson = False) -> None:
    """Describe a teacher: modality, embedding dimension, options and weight files."""
    from ccl_cli.teachers.description import describe_network, describe_weights

    plugin, cls, spec = _resolve(name)
    weights = [describe_weights(file, spec) for file in cls.weight_files(spec)]
    network = describe_network(cls, spec)
    print_plugin(plugin, as_json, {"name": spec.label, "modality": spec.kind, **network, "weights": weights})


@command(app, "pull", "ccl teachers pull audio:cnn14")
def pull(name: options.TeacherName, as_json: options.AsJson = False) -> None:
    """Download a teacher's published weights, and verify their checksum."""
    from ccl_cli.teachers import weights
    from ccl_cli.utils.progress import download_bar

    _, cls, spec = _resolve(name)
    files = cls.weight_files(spec)
    if not files:
        _log.info("%s needs no published weights.", spec.label)
    paths = []
    for file in files:
        _log.info("%s from %s (%s)", file.filename, file.address, file.licence or "licence unknown")
        try:
            with download_bar(file.filename) as progress:
                paths.append(str(weights.pull(file, progress)))
        except WeightsError as error:
            if error.hint and len(files) > 1:
                error.hint += f" All {len(files)} files: `ccl teachers info {shlex.quote(str(spec))}`."
            raise
    print_paths(paths, as_json)


def _resolve(name: str) -> tuple[Plugin, type[Teacher], Spec]:
    from ccl_cli.config.spec import parse_model

    spec = parse_model(name)
    plugin = registry.find(registry.TEACHERS, spec.label)
    return plugin, registry.load(plugin), spec


@command(
    app,
    "fit",
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


@command(
    app,
    "probe",
    "ccl teachers probe --data ucf51 --teacher audio:cnn14 --teacher image:small",
    "ccl teachers probe --data folder:my_videos --teacher audio:cnn14 --per-class",
    "ccl teachers probe --data csv:set.csv --teacher flow:precomputed@flow.npz",
    "ccl teachers probe --data synthetic --teacher audio:small --json > p.json",
)
def probe(
    data: options.Data = None,
    teacher: options.Teachers = None,
    split: Annotated[
        Literal["test", "val"] | None,
        data_option(help="Split to classify. Default: test, else val, else held-out training videos."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of nearest neighbours.")] = 10,
    batch_size: Annotated[int | None, runtime_option(min=1, help="Videos per forward pass.")] = None,
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure how well teachers separate the classes of a data set, before any training.

    Reports kNN and linear accuracy for each teacher and each pair of teachers, and a verdict per class.
    """
    start_processes(num_processes)
    from ccl_cli.evaluation.probe import probe_teachers

    result = probe_teachers(data, teacher or (), split=split, k=k, batch_size=batch_size, workers=workers)
    print_result(result, as_json, lambda: _print_probes(result, per_class))


def _print_probes(result: Mapping[str, Any], per_class: bool) -> None:
    from ccl_cli.report.tables.terminal import wrapped

    probes = result["probes"]
    columns = ["teacher", "kNN %", "linear %", "chance %", f"{result['data']['split']} videos"]
    console.print_table(columns, [_accuracies(each) for each in probes])
    print("\nkNN recall in %, best first:")
    single = [each for each in probes if len(each["teachers"]) == 1]
    if per_class:
        rows = [row for each in single for row in _class_rows(each)]
        console.print_table(["teacher", "class", "recall %", "correlated"], rows)
    else:
        rows = [row for each in single for row in _verdict_rows(each)]
        console.print_table(["teacher", "correlated", "classes", "names"], rows)
    print(f"\n{wrapped(result['rule'])}")


def _accuracies(probe: Mapping[str, Any]) -> tuple[str, ...]:
    figures = (f"{probe[key]:.1f}" if key in probe else "-" for key in ("knn", "linear", "chance"))
    return " + ".join(probe["teachers"]), *figures, f"{probe['test']['present']}/{probe['test']['videos']}"


def _verdict_rows(probe: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for verdict, names in probe["verdicts"].items():
        recalls = [f"{name} {probe['per_class'][name]['recall']:.0f}" for name in names[:_MAX_NAMES]]
        more = [f"and {len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
        yield probe["teachers"][0], verdict, str(len(names)), ", ".join([*recalls, *more]) or "none"


def _class_rows(probe: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for name, each in probe["per_class"].items():
        recall = "-" if each["recall"] is None else f"{each['recall']:.0f}"
        yield probe["teachers"][0], name, recall, each["verdict"] or "-"
