"""``ccl index``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, output_option, print_result, share_videos
from ccl_cli.utils import console

app = typer.Typer(add_completion=False)
Paths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN|PATH",
        help="Video files and folders. Default: the paths that the library was built from. Put the run "
        "folder or model file to use before them; default: the library's model, or the newest run "
        "for a new library.",
        show_default=False,
    ),
]


@command(
    app,
    "index",
    "ccl index my_videos --output library",
    "ccl index more_videos --output library",
    "ccl index --output library      reads only new and changed files",
    "ccl index runs/mine/a --output library --rebuild",
)
def index(
    output: Annotated[Path, output_option(metavar="DIR", help="Folder of the library.")],
    paths: Paths = None,
    forget: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Remove the videos of this path from the library. Repeatable."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Rebuild the library from scratch, e.g. with another model.")
    ] = False,
    approximate: Annotated[
        bool, output_option("--approximate", help="Also build a faiss index for ccl search --approximate.")
    ] = False,
    batch_size: options.ClipBatchSize = None,
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    executor: options.Executor = None,
    part: options.Part = None,
    as_json: options.AsJson = False,
) -> None:
    """Build or update a searchable library of videos.

    Reads new and changed files, and removes deleted files. Can be interrupted at any time; run the same
    command again to continue.
    """
    from ccl_cli.executors.part import parse_part

    share = parse_part(part)
    chosen = share_videos(executor, num_processes, share)
    from ccl_cli.cli.unreadable import Unreadable
    from ccl_cli.executors.blocks import block_executor
    from ccl_cli.library.index import index as update_library
    from ccl_cli.training.run.folder import split_run

    unreadable = Unreadable()
    run, files = split_run(paths or [], optional=True)
    with block_executor(chosen, share) as blocks:
        update = update_library(
            files,
            output,
            model=run,
            forget_paths=forget or (),
            rebuild=rebuild,
            approximate=approximate,
            on_unreadable=unreadable.add,
            batch_size=batch_size,
            workers=workers,
            executor=blocks,
        )
    counts = (update.videos, update.added, update.unchanged, update.removed)
    rows = [[str(output), *map(str, counts)]]
    columns = ["library", "videos", "read", "unchanged", "gone"]
    print_result(asdict(update), as_json, lambda: console.print_table(columns, rows))
    unreadable.check()
