"""``ccl predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, output_option
from ccl_cli.cli.videos.named import named_videos
from ccl_cli.errors import UsageError
from ccl_cli.utils import console
from ccl_cli.utils.text import visible

if TYPE_CHECKING:
    from ccl_cli.deploy.predict import Prediction
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
    student, videos, unreadable, chosen = named_videos(paths, executor, part, num_processes)
    from ccl_cli.deploy.predict import predict as predict_files
    from ccl_cli.executors.blocks import block_executor

    student.need_classes()
    form: Format = "json" if as_json else format_
    several = form == "table" and not output and len(videos.videos) > 1
    top = top or (1 if several else _TOP)
    settings: Any = {"precision": precision, "batch_size": batch_size, "workers": workers}
    with (
        block_executor(chosen) as blocks,
        _writer(output, form, videos.names, student.artefact.classes) as write,
        closing(predict_files(student, videos, top=top, executor=blocks, **settings)) as predictions,
    ):
        for prediction in predictions:
            if prediction.fault:
                unreadable.add(prediction.path, prediction.fault)
            write(_record(prediction))
        for name, reason in videos.closed.items():
            write({"video": name, "error": reason})
    if output and console.first_process():
        print(output)
    unreadable.check()


def _record(prediction: Prediction) -> Record:
    """JSON record of a video's most probable classes, or of the reason why it is unreadable."""
    if prediction.fault:
        return {"video": prediction.path, "error": prediction.fault}
    classes = [{"class": name, "probability": round(value, 6)} for name, value in prediction.classes]
    return {"video": prediction.path, "windows": prediction.windows, "classes": classes}


def _csv_rows(record: Record) -> Iterator[Sequence[object]]:
    """One row per class and video."""
    if "error" in record:
        yield record["video"], "", "", "", "", record["error"]
    for rank, each in enumerate(record.get("classes", ()), 1):
        yield record["video"], record["windows"], rank, each["class"], each["probability"], ""


@contextmanager
def _writer(
    output: Path | None, form: Format, names: Sequence[str], classes: Sequence[str]
) -> Iterator[Callable[[Record], None]]:
    """Yield a function that writes one record; it does nothing on all processes but the first."""
    from ccl_cli.utils.rows import JSON, JSON_LINES, csv_form, row_file, row_writer

    csv = csv_form(("video", "windows", "rank", "class", "probability", "error"), _csv_rows)
    if not console.first_process():
        yield lambda record: None
    elif output:
        with row_file(output, csv) as write:
            yield write
    elif form == "table":
        yield _table(names, classes)
    else:
        with row_writer(_print, {"csv": csv, "json": JSON, "jsonl": JSON_LINES}[form]) as write:
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
