"""``ccl teachers probe``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import data_option, print_result, runtime_option, start_processes
from ccl_cli.utils import console

_MAX_NAMES = 40  # class names per verdict without --per-class

EXAMPLES = (
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
    print_result(result, as_json, lambda: _print(result, per_class))


def _print(result: Mapping[str, Any], per_class: bool) -> None:
    from ccl_cli.report.tables.terminal import wrapped

    probes = result["probes"]
    columns = ["teacher", "kNN %", "linear %", "chance %", f"{result['data']['split']} videos"]
    console.print_table(columns, [_row(each) for each in probes])
    print("\nkNN recall in %, best first:")
    single = [each for each in probes if len(each["teachers"]) == 1]
    if per_class:
        rows = [row for each in single for row in _class_rows(each)]
        console.print_table(["teacher", "class", "recall %", "correlated"], rows)
    else:
        rows = [row for each in single for row in _verdict_rows(each)]
        console.print_table(["teacher", "correlated", "classes", "names"], rows)
    print(f"\n{wrapped(result['rule'])}")


def _row(probe: Mapping[str, Any]) -> tuple[str, ...]:
    figures = (f"{probe[key]:.1f}" if key in probe else "-" for key in ("knn", "linear", "chance"))
    return " + ".join(probe["teachers"]), *figures, f"{probe['test']['present']}/{probe['test']['videos']}"


def _verdict_rows(probe: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Rows of the classes by verdict, with their recall."""
    for verdict, names in probe["verdicts"].items():
        recalls = [f"{name} {probe['per_class'][name]['recall']:.0f}" for name in names[:_MAX_NAMES]]
        more = [f"and {len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
        yield probe["teachers"][0], verdict, str(len(names)), ", ".join([*recalls, *more]) or "none"


def _class_rows(probe: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for name, each in probe["per_class"].items():
        recall = "-" if each["recall"] is None else f"{each['recall']:.0f}"
        yield probe["teachers"][0], name, recall, each["verdict"] or "-"
