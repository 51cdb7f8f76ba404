"""``ccl probe``."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import DATA, RUNTIME, examples, with_verbosity
from ccl_cli.utils import console

app = typer.Typer(add_completion=False)

_NAMES = 40  # of classes for each verdict, where not all are asked for
_PIPE_WIDTH = 100


@app.command(
    epilog=examples(
        "ccl probe --data ucf51 --teacher audio:cnn14 --teacher image:resnet34",
        "ccl probe --data folder:my_videos --teacher audio:cnn14 --per-class",
        "ccl probe --data 'ucf51?videos=false' --teacher audio:precomputed@e.npz",
        "ccl probe --data synthetic --teacher audio:small --json > probe.json",
    )
)
@with_verbosity
def probe(
    data: options.Data = None,
    teacher: options.Teachers = None,
    split: Annotated[
        Literal["test", "val"] | None,
        typer.Option(
            help="Whose videos to tell apart; default test, else val, else held-out ones.",
            rich_help_panel=DATA,
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Nearest neighbours that vote.")] = 10,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Videos per forward pass.", rich_help_panel=RUNTIME)
    ] = None,
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
) -> None:
    """Tell which teachers know a data set's classes, before any training.

    From each teacher's embeddings alone, and each pair's: kNN and linear accuracy, and a verdict per class.
    """
    from ccl_cli.utils.launch import launch, wanted

    if wanted(num_processes):
        raise typer.Exit(launch(num_processes, sys.argv[1:]))
    from ccl_cli.evaluation.teacher_probe import probe_teachers

    result = probe_teachers(data, teacher or (), split=split, k=k, batch_size=batch_size, workers=workers)
    if not console.first_process():
        return
    if as_json:
        print(json.dumps(result))
    else:
        _show(result, per_class)


def _show(result: Mapping[str, Any], per_class: bool) -> None:
    data, probes = result["data"], result["probes"]
    console.print_table(
        ["teacher", "kNN %", "linear %", "chance %", f"{data['split']} videos"],
        [_row(each) for each in probes],
    )
    single = [each for each in probes if len(each["teachers"]) == 1]
    print()
    if per_class:
        columns = [column for each in single for column in (each["teachers"][0], "verdict")]
        names = single[0]["per_class"]
        console.print_table(["class", *columns], [_class_row(name, single) for name in names])
    else:
        print("\n\n".join(map(_verdicts, single)))
    print(f"\n{_wrapped(result['rule'])}")


def _row(each: Mapping[str, Any]) -> tuple[str, ...]:
    figures = (f"{each[key]:.1f}" if key in each else "-" for key in ("knn", "linear", "chance"))
    return " + ".join(each["teachers"]), *figures, f"{each['test']['present']}/{each['test']['videos']}"


def _verdicts(each: Mapping[str, Any]) -> str:
    """The classes by verdict, with their recall; a name is not torn from its figure."""
    lines = [_wrapped(f"Correlated with {each['teachers'][0]} (kNN recall in %, best first):")]
    for verdict, names in each["verdicts"].items():
        shown = [f"{name} {each['per_class'][name]['recall']:.0f}" for name in names[:_NAMES]]
        more = [f"and {len(names) - _NAMES} more"] if len(names) > _NAMES else []
        text = ", ".join(part.replace(" ", "\0") for part in [*shown, *more]) or "none"
        lines.append(_wrapped(f"{len(names):>4} {verdict:<7}{text}", " " * 12).replace("\0", " "))
    return "\n".join(lines)


def _wrapped(text: str, indent: str = "") -> str:
    columns = shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns
    return textwrap.fill(
        text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _class_row(name: str, single: Sequence[Mapping[str, Any]]) -> list[str]:
    row = [name]
    for each in single:
        found = each["per_class"][name]
        row += ["-" if found["recall"] is None else f"{found['recall']:.0f} %", found["verdict"] or "-"]
    return row
