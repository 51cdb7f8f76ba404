"""``ccl predict``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import OUTPUT, examples, with_verbosity
from ccl_cli.errors import UsageError
from ccl_cli.utils import console
from ccl_cli.utils.text import visible

if TYPE_CHECKING:
    from ccl_cli.deploy.predict import Prediction
    from ccl_cli.utils.rows import Record

app = typer.Typer(add_completion=False)

_TOP = 5
_WIDEST = 40  # of a class's name in the table
_COLUMNS = ("video", "windows", "rank", "class", "probability", "error")


@app.command(
    epilog=examples(
        "ccl predict clip.mp4",
        "ccl predict my_videos --output classes.csv",
        "ccl predict a.mp4 b.mp4 --top 3 --json",
        "ccl predict my_videos --model runs/mine/20260101-120000-1a2b3c4d",
    )
)
@with_verbosity
def predict(
    paths: options.Videos,
    model: options.Model = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="Classes of each video; default 5, in a table of several videos 1.",
            show_default=False,
        ),
    ] = None,
    batch_size: options.WindowsAtOnce = None,
    precision: options.ForwardPrecision = "fp32",
    workers: options.Workers = None,
    as_json: options.JsonLines = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.", rich_help_panel=OUTPUT)] = False,
    output: options.RowFile = None,
) -> None:
    """Name the classes of video files, with their probabilities.

    Videos are read as ccl eval reads them. What cannot be read is named and passed over: exit code 4.
    """
    if as_json + as_csv + (output is not None) > 1:
        raise UsageError("--json, --csv and --output exclude each other.", "Name one of them.")
    from ccl_cli.cli.unreadable import Unreadable
    from ccl_cli.data.video_paths import list_videos

    raw = list_videos(paths)
    unreadable = Unreadable(len(raw.videos), raw.closed)
    tabular = not (as_json or as_csv or output)
    shown = top or (1 if tabular and len(raw.videos) > 1 else _TOP)
    with _place(output, as_json, as_csv) as add:
        from ccl_cli.deploy.predict import predict as predict_files
        from ccl_cli.evaluation.model import load_student

        student = load_student(model)
        add = add or _table(raw.names, student.artefact.classes)
        predictions = predict_files(
            student, raw, top=shown, precision=precision, batch_size=batch_size, workers=workers
        )
        with closing(predictions):
            for prediction in predictions:
                if prediction.fault:
                    unreadable.tell(prediction.path, prediction.fault)
                add(_record(prediction))
        for name, reason in raw.closed.items():
            add({"video": name, "error": reason})
    if output:
        print(output)
    unreadable.check()


def _record(prediction: Prediction) -> Record:
    """A video's most probable classes, the most probable first, or why there are none."""
    if prediction.fault:
        return {"video": prediction.path, "error": prediction.fault}
    classes = [{"class": name, "probability": round(value, 6)} for name, value in prediction.classes]
    return {"video": prediction.path, "windows": prediction.windows, "classes": classes}


@contextmanager
def _place(output: Path | None, as_json: bool, as_csv: bool) -> Iterator[Callable[[Record], None] | None]:
    """Where records go; None: into a table, which has to know the classes first."""
    from ccl_cli.utils.rows import LINES, Rows, csv_form, row_file

    form = csv_form(_COLUMNS, _csv_rows)
    if output:
        with row_file(output, form) as rows:
            yield rows.add
    elif as_json or as_csv:
        yield Rows(console.Stdout(), LINES if as_json else form).add
    else:
        yield None


def _csv_rows(record: Record) -> Iterator[Sequence[object]]:
    if "error" in record:
        yield record["video"], "", "", "", "", record["error"]
    for rank, each in enumerate(record.get("classes", ()), 1):
        yield record["video"], record["windows"], rank, each["class"], each["probability"], ""


def _table(names: Sequence[str], classes: Sequence[str]) -> Callable[[Record], None]:
    """A row for each class of each video; on a terminal a video is named once."""
    widths = [max(map(len, map(visible, texts)), default=0) for texts in (names, classes)]
    lines = console.Lines(["video", "class", f"{'%':>6}"], [widths[0], min(widths[1], _WIDEST), 6])
    repeat = console.plain(sys.stdout)

    def add(record: Record) -> None:
        for rank, each in enumerate(record.get("classes", ())):
            name = record["video"] if repeat or not rank else ""
            lines.row(name, each["class"], f"{100 * each['probability']:6.2f}")

    return add
