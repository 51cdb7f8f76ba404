"""``ccl predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, output_option, share_videos
from ccl_cli.errors import UsageError
from ccl_cli.utils import console
from ccl_cli.utils.text import visible

if TYPE_CHECKING:
    from ccl_cli.utils.rows import Record

app = typer.Typer(add_completion=False)

_TOP = 5
_MAX_WIDTH = 40  # characters of a class name in the table
Format = Literal["table", "csv", "json", "jsonl"]
Top = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="K",
        help="Number of classes per video. Default: 5, or 1 in a table of several videos.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    Format, output_option("--format", help="Output format; jsonl prints one object per line and video.")
]
Output = Annotated[
    Path | None,
    output_option(metavar="FILE", help="File to write; the suffix .csv, .json or .jsonl selects the format."),
]


@command(
    app,
    "predict",
    "ccl predict clip.mp4",
    "ccl predict my_videos --output classes.csv",
    "ccl predict a.mp4 b.mp4 --top 3 --json",
    "ccl predict runs/mine/20260101-120000-1a2b3c4d my_videos",
)
def predict(
    paths: options.RunAndVideos,
    top: Top = None,
    batch_size: options.ClipBatchSize = None,
    precision: options.ForwardPrecision = "fp32",
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    executor: options.Executor = None,
    part: options.Part = None,
    format_: FormatOption = "table",
    as_json: options.AsJson = False,
    output: Output = None,
) -> None:
    """Predict the classes of video files.

    Reads videos in the same way as ccl eval. Unreadable files are reported and skipped, and the command exits
    with code 4.
    """
    if as_json + (format_ != "table") + (output is not None) > 1:
        raise UsageError("--json, --format and --output exclude each other.", "Use only one of them.")
    from ccl_cli.executors.part import parse_part

    share = parse_part(part)
    chosen = share_videos(executor, num_processes)
    from ccl_cli.cli.unreadable import Unreadable
    from ccl_cli.data.video_paths import list_videos
    from ccl_cli.training.run.folder import split_run

    run, files = split_run(paths)
    raw = list_videos(files).share(share)
    unreadable = Unreadable(len(raw.videos), raw.closed)
    from ccl_cli.deploy.predict import predict as predict_files
    from ccl_cli.deploy.prediction_rows import prediction_record, unreadable_record
    from ccl_cli.evaluation.model import load_student
    from ccl_cli.executors.blocks import block_executor

    student = load_student(run)
    student.need_classes()
    form: Format = "json" if as_json else format_
    several = form == "table" and not output and len(raw.videos) > 1
    top = top or (1 if several else _TOP)
    settings: Any = {"precision": precision, "batch_size": batch_size, "workers": workers}
    with (
        block_executor(chosen) as blocks,
        _writer(output, form, raw.names, student.artefact.classes) as write,
        closing(predict_files(student, raw, top=top, executor=blocks, **settings)) as predictions,
    ):
        for prediction in predictions:
            if prediction.fault:
                unreadable.add(prediction.path, prediction.fault)
            write(prediction_record(prediction))
        for name, reason in raw.closed.items():
            write(unreadable_record(name, reason))
    if output and console.first_process():
        print(output)
    unreadable.check()


@contextmanager
def _writer(
    output: Path | None, form: Format, names: Sequence[str], classes: Sequence[str]
) -> Iterator[Callable[[Record], None]]:
    """Yield a function that writes one record; it does nothing on all processes but the first."""
    from ccl_cli.deploy.prediction_rows import CSV
    from ccl_cli.utils.rows import JSON, JSON_LINES, row_file, row_writer

    if not console.first_process():
        yield lambda record: None
    elif output:
        with row_file(output, CSV) as write:
            yield write
    elif form == "table":
        yield _table(names, classes)
    else:
        with row_writer(_print, {"csv": CSV, "json": JSON, "jsonl": JSON_LINES}[form]) as write:
            yield write


def _print(text: str) -> None:
    print(text, end="", flush=True)  # a progress bar may have replaced stdout


def _table(names: Sequence[str], classes: Sequence[str]) -> Callable[[Record], None]:
    """Return a function that prints one row per class of each video."""
    widest = [
        max(5, *(len(visible(text)) for text in texts)) for texts in (["video", *names], ["class", *classes])
    ]
    widths = [widest[0], min(widest[1], _MAX_WIDTH), 6]
    console.print_row(["video", "class", f"{'%':>6}"], widths)

    def write(record: Record) -> None:
        for each in record.get("classes", ()):
            cells = record["video"], each["class"], f"{100 * each['probability']:6.2f}"
            console.print_row(cells, widths)

    return write
