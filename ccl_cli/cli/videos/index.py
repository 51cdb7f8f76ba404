"""``ccl index``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, output_option, print_result, start_processes
from ccl_cli.utils import console

app = typer.Typer(add_completion=False)


@command(
    app,
    "index",
    "ccl index my_videos --output library",
    "ccl index more_videos --output library",
    "ccl index --output library      reads only what is new or has changed",
    "ccl index runs/mine/a --output library --rebuild",
)
def index(
    output: Annotated[Path, output_option(metavar="DIR", help="The library: a folder of its own.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN|PATH",
            help="Video files, and folders of them; default those that the library was made from. Before "
            "them the run's folder or the model file; default the library's own, for a new one the newest.",
            show_default=False,
        ),
    ] = None,
    forget: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Take what it holds of a path out; repeat it for more."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Begin anew, for example with another model.")
    ] = False,
    approximate: Annotated[
        bool, output_option("--approximate", help="Also make a faiss index for ccl search --approximate.")
    ] = False,
    batch_size: options.ClipBatchSize = None,
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    as_json: options.AsJson = False,
) -> None:
    """Keep the features of your videos in a library, for ccl search.

    Files that are new or have changed are read, and those that are gone drop out. Stop it at any time: the
    same command goes on.
    """
    start_processes(num_processes)
    from ccl_cli.cli.unreadable import Unreadable
    from ccl_cli.library.index import index as update_library
    from ccl_cli.training.run.folder import split_run

    unreadable = Unreadable()
    run, files = split_run(paths or [], optional=True)
    update = update_library(
        files,
        output,
        model=run,
        forget_paths=forget or (),
        rebuild=rebuild,
        approximate=approximate,
        batch_size=batch_size,
        workers=workers,
        on_unreadable=unreadable.add,
    )
    columns = ["library", "videos", "read", "unchanged", "gone"]
    counts = (update.videos, update.added, update.unchanged, update.removed)
    row = [str(output), *map(str, counts)]
    print_result(asdict(update), as_json, lambda: console.print_table(columns, [row]))
    unreadable.check()
