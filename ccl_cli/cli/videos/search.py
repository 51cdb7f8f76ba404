"""``ccl search``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, output_option, print_result
from ccl_cli.utils import console
from ccl_cli.utils.text import visible

if TYPE_CHECKING:
    from ccl_cli.library.query import Answer

app = typer.Typer(add_completion=False)

_TOP = 10
Queries = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN|PATH",
        help="Query videos: files and folders, searched recursively. Put the library's model before them if "
        "it has moved.",
        show_default=False,
    ),
]
Probes = Annotated[
    int,
    typer.Option(min=1, help="Inverted lists to search with --approximate; more lists find more neighbours."),
]


@command(
    app,
    "search",
    "ccl search clip.mp4 --index library",
    "ccl search a.mp4 b.mp4 --index library --top 3 --json",
    "ccl search queries --index library --html nearest.html",
)
def search(
    paths: Queries,
    index: Annotated[Path, typer.Option("--index", metavar="DIR", help="Library built by ccl index.")],
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Number of results per query.")] = _TOP,
    include_self: Annotated[
        bool, typer.Option("--include-self", help="Include the query's own file in its results.")
    ] = False,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Search the faiss index, for very large libraries.")
    ] = False,
    nprobe: Probes = 32,
    batch_size: options.ClipBatchSize = None,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    html: Annotated[
        Path | None, output_option(metavar="FILE", help="Write an HTML page with pictures instead.")
    ] = None,
) -> None:
    """Find the videos of a library that are most similar to a query video.

    Similarity is the cosine of the features. The search is exact unless --approximate is given.
    """
    from ccl_cli.cli.unreadable import Unreadable
    from ccl_cli.data.video_paths import list_videos
    from ccl_cli.training.run.folder import split_run

    run, files = split_run(paths)
    raw = list_videos(files)
    unreadable = Unreadable(len(raw.videos), raw.closed)
    from ccl_cli.library.page import page
    from ccl_cli.library.query import search as search_library
    from ccl_cli.utils.files import write_text

    answers = search_library(
        raw,
        index,
        top=top,
        include_self=include_self,
        model=run,
        nprobe=nprobe if approximate else None,
        batch_size=batch_size,
        workers=workers,
    )
    for answer in answers:
        if answer.fault:
            unreadable.add(answer.query, answer.fault)
    if html and console.first_process():
        write_text(html, page(answers, index))
    records = [_record(answer) for answer in answers]
    print_result(records, as_json, lambda: print(html) if html else _print(answers))
    unreadable.check()


def _record(answer: Answer) -> dict[str, Any]:
    if answer.fault:
        return {"query": answer.query, "error": answer.fault}
    hits = [{"video": hit.path, "cosine": round(hit.cosine, 6)} for hit in answer.hits]
    return {"query": answer.query, "hits": hits}


def _print(answers: Sequence[Answer]) -> None:
    rows = [
        (visible(hit.path), f"{hit.cosine:6.3f}", visible(answer.query))
        for answer in answers
        for hit in answer.hits
    ]
    console.print_table(["video", "cosine", "query"], rows)
