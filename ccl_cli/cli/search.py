"""``ccl index`` and ``ccl search``: retrieval over a library of one's own videos."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import OUTPUT, examples, with_verbosity
from ccl_cli.utils import console
from ccl_cli.utils.text import visible

if TYPE_CHECKING:
    from ccl_cli.library.query import Answer

index_app = typer.Typer(add_completion=False)
search_app = typer.Typer(add_completion=False)

_TOP = 10


@index_app.command(
    "index",
    epilog=examples(
        "ccl index my_videos --output library",
        "ccl index more_videos --output library",
        "ccl index --output library      reads only what is new or has changed",
        "ccl index --output library --rebuild --model runs/mine/a",
    ),
)
@with_verbosity
def index(
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="The library: a folder of its own.", rich_help_panel=OUTPUT)
    ],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH",
            help="Video files, and folders of them; default those that the library was made from.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN|FILE",
            help="A run's folder or a model file; default the library's own, for a new one the newest run.",
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
        bool,
        typer.Option("--faiss", help="Also make an index for ccl search --faiss.", rich_help_panel=OUTPUT),
    ] = False,
    batch_size: options.WindowsAtOnce = None,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
) -> None:
    """Keep the features of your videos in a library, for ccl search.

    Files that are new or have changed are read, and those that are gone drop out. Stop it at any time: the
    same command goes on.
    """
    from ccl_cli.cli.unreadable import Unreadable
    from ccl_cli.library.index import index as bring_up_to_date

    unreadable = Unreadable()
    done = bring_up_to_date(
        paths or (),
        output,
        model=model,
        forget_paths=forget or (),
        rebuild=rebuild,
        approximate=approximate,
        batch_size=batch_size,
        workers=workers,
        on_unreadable=unreadable.tell,
    )
    if as_json:
        print(json.dumps(asdict(done)))
    else:
        counts = {
            "videos": done.videos,
            "read": done.added,
            "unchanged": done.unchanged,
            "gone": done.removed,
        }
        console.print_table(["library", *counts], [[str(output), *map(str, counts.values())]])
    unreadable.check()


@search_app.command(
    "search",
    epilog=examples(
        "ccl search clip.mp4 --index library",
        "ccl search a.mp4 b.mp4 --index library --top 3 --json",
        "ccl search queries --index library --html found.html",
    ),
)
@with_verbosity
def search(
    paths: options.Videos,
    index: Annotated[Path, typer.Option("--index", metavar="DIR", help="The library that ccl index made.")],
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Videos to find for each query.")] = _TOP,
    keep_self: Annotated[
        bool, typer.Option("--keep-self", help="Let a query find its own file, if the library holds it.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(metavar="RUN|FILE", help="Where the library's model is; default where it was."),
    ] = None,
    approximate: Annotated[
        bool, typer.Option("--faiss", help="Approximate search, for very large libraries.")
    ] = False,
    probes: Annotated[
        int, typer.Option(min=1, help="With --faiss: lists to look into; more find more.")
    ] = 32,
    batch_size: options.WindowsAtOnce = None,
    workers: options.Workers = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object per query, a line each.", rich_help_panel=OUTPUT),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write one page with pictures instead.", rich_help_panel=OUTPUT
        ),
    ] = None,
) -> None:
    """Find the videos of a library that are nearest to some.

    Nearest by the cosine of their features, and exactly those, unless --faiss is given.
    """
    from ccl_cli.cli.unreadable import Unreadable
    from ccl_cli.data.video_paths import list_videos

    raw = list_videos(paths)
    unreadable = Unreadable(len(raw.videos), raw.closed)
    from ccl_cli.library.query import search as find

    answers = find(
        raw,
        index,
        top=top,
        keep_self=keep_self,
        model=model,
        probes=probes if approximate else None,
        batch_size=batch_size,
        workers=workers,
    )
    for answer in answers:
        if answer.fault:
            unreadable.tell(answer.query, answer.fault)
    if html:
        _write_page(answers, index, html)
    if as_json:
        for answer in answers:
            print(json.dumps(_plain(answer)))
    elif html:
        print(html)
    else:
        _show(answers)
    unreadable.check()


def _plain(answer: Answer) -> dict[str, object]:
    if answer.fault:
        return {"query": answer.query, "error": answer.fault}
    found = [{"video": hit.path, "cosine": round(hit.cosine, 6)} for hit in answer.hits]
    return {"query": answer.query, "found": found}


def _show(answers: Sequence[Answer]) -> None:
    """What each query found; in a file each line names its query."""
    if console.plain(sys.stdout):
        widths = [_widest(hit.path for each in answers for hit in each.hits), 6]
        lines = console.Lines(
            ["found", "cosine", "query"], [*widths, _widest(each.query for each in answers)]
        )
        for each in answers:
            for hit in each.hits:
                lines.row(hit.path, f"{hit.cosine:6.3f}", each.query)
        return
    for number, each in enumerate(answers):
        if len(answers) > 1:
            print("\n" * bool(number) + console.bold(visible(each.query)))
        lines = console.Lines(["found", "cosine"], [_widest(hit.path for hit in each.hits), 6])
        for hit in each.hits:
            lines.row(hit.path, f"{hit.cosine:6.3f}")


def _widest(texts: Iterable[str]) -> int:
    return max((len(visible(text)) for text in texts), default=0)


def _write_page(answers: Sequence[Answer], folder: Path, path: Path) -> None:
    from ccl_cli.library.page import page
    from ccl_cli.utils.files import write_text

    write_text(path, page(answers, folder))
