"""``ccl cache``: frozen teachers' embeddings, computed once."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import examples, group, with_verbosity
from ccl_cli.errors import DataError, UsageError
from ccl_cli.utils import console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ccl_cli.config.recipe import Recipe
    from ccl_cli.teachers.embedding_cache import Cached, Key

app = group(
    "Compute frozen teachers' embeddings once; ccl train reads what fits.",
    "ccl cache build --data ucf51 --teacher audio:cnn14 --teacher image:resnet34",
    "ccl cache build --recipe ucf51 --num-processes 4",
    "ccl cache ls",
    "ccl cache verify --recipe ucf51",
    "ccl cache prune --stale --recipe ucf51",
)

Views = Annotated[
    int | None,
    typer.Option(min=1, help="Frames of each video for a teacher of single frames; default the recipe's, 8."),
]


@app.command(
    "build",
    epilog=examples(
        "ccl cache build --data ucf51 --teacher audio:cnn14 --teacher image:resnet34",
        "ccl cache build --recipe mine.yaml --views 16 --num-processes 4",
    ),
)
@with_verbosity
def build(
    recipe: options.RecipeName = None,
    data: options.Data = None,
    teacher: options.Teachers = None,
    views: Views = None,
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    set_: options.Overrides = None,
) -> None:
    """Embed every video that one may learn from; what is there is kept, after any interruption too."""
    from ccl_cli.utils.launch import launch, wanted

    experiment = _experiment(recipe, data, teacher, views, workers, set_)
    if wanted(num_processes):
        raise typer.Exit(launch(num_processes, sys.argv[1:]))
    from ccl_cli.data.sources import load_data
    from ccl_cli.training.build import load_teachers
    from ccl_cli.training.caching import build_cache, is_exact
    from ccl_cli.training.device import set_up

    manifest = load_data(experiment.data)
    teachers = load_teachers(experiment.teachers, manifest.classes)
    accelerator = set_up("fp32")
    for name, each in teachers.items():
        cached = build_cache(name, each, manifest, experiment, accelerator)
        if console.first_process():
            print(cached.folder)
            if experiment.cache.use != "build":
                is_exact(cached, experiment.clip)


@app.command("ls", epilog=examples("ccl cache ls", "ccl cache ls --json"))
@with_verbosity
def list_caches(as_json: options.AsJson = False) -> None:
    """List the caches on this machine."""
    from ccl_cli.teachers.embedding_cache import folder_bytes, unfinished

    rows = [_row(cached) for cached in _all()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = ["cache", "data", "views", "videos", "with embedding", "MB"]
    console.print_table(
        columns,
        [
            (r["name"], r["data"], r["views"], str(r["videos"]), str(r["states"].get("present", 0)), r["mb"])
            for r in rows
        ],
    )
    for folder in unfinished():
        print(f"{folder.name}: unfinished, {_megabytes(folder_bytes(folder))} MB; build it again to go on.")


@app.command("verify", epilog=examples("ccl cache verify --recipe mine.yaml", "ccl cache verify"))
@with_verbosity
def verify(
    recipe: options.RecipeName = None,
    data: options.Data = None,
    teacher: options.Teachers = None,
    views: Views = None,
    set_: options.Overrides = None,
) -> None:
    """Check every cache's bytes or, with a recipe or data and teachers, embed some videos of theirs again."""
    faults: list[str] = []
    named = recipe or data or teacher
    found = _of_experiment(_experiment(recipe, data, teacher, views, 0, set_)) if named else _by_bytes()
    for name, wrong in found:
        print(f"{name}: {'; '.join(wrong) or 'ok'}")
        faults += wrong
    if faults:
        raise DataError(
            f"{len(faults)} things are wrong with the caches.",
            "Remove them with `ccl cache prune NAME` and build them again.",
        )


@app.command(
    "prune", epilog=examples("ccl cache prune --stale --recipe mine.yaml", "ccl cache prune --all --yes")
)
@with_verbosity
def prune(
    names: Annotated[list[str] | None, typer.Argument(help="Caches, as `ccl cache ls` names them.")] = None,
    stale: Annotated[
        bool,
        typer.Option("--stale", help="Those of the recipe's teachers and data that do not fit any more."),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    recipe: options.RecipeName = None,
    data: options.Data = None,
    teacher: options.Teachers = None,
    views: Views = None,
    set_: options.Overrides = None,
) -> None:
    """Delete caches and unfinished builds."""
    from ccl_cli.teachers.embedding_cache import folder_bytes, remove, root, unfinished

    if sum([bool(names), stale, everything]) != 1:
        raise UsageError("Say which caches to delete.", "Name them, or give --stale or --all.")
    there = {folder.name: folder for folder in _folders()}
    if stale:
        chosen = _stale(_experiment(recipe, data, teacher, views, 0, set_))
    elif everything:
        chosen = [*there.values(), *unfinished()]
    else:
        chosen = [_named(name, there) for name in names or ()]
    if not chosen:
        print("Nothing to delete.")
        return
    total = _megabytes(sum(map(folder_bytes, chosen)))
    for folder in chosen:
        print(folder.name)
    if not yes and not _agreed(f"Delete {len(chosen)} from {root()}, {total} MB?"):
        raise UsageError("Nothing was deleted.", "Give --yes to delete without being asked.")
    for folder in chosen:
        remove(folder)
    print(f"Deleted {len(chosen)}, {total} MB.")


def _experiment(
    recipe: str | None,
    data: str | None,
    teacher: list[str] | None,
    views: int | None,
    workers: int | None,
    overrides: list[str] | None,
) -> Recipe:
    from ccl_cli.config.load import load_recipe

    flags = {"data": data, "teachers": teacher, "cache.views": views, "train.workers": workers}
    experiment = load_recipe(recipe, flags, overrides or ())
    if not experiment.teachers:
        raise UsageError("No teacher is named.", "Give --teacher, for example --teacher image:resnet34.")
    return experiment


def _folders() -> Iterator[Path]:
    from ccl_cli.teachers.embedding_cache import caches

    return caches()


def _all() -> Iterator[Cached]:
    from ccl_cli.teachers.embedding_cache import Cached

    return (Cached.open(folder) for folder in _folders())


def _row(cached: Cached) -> dict[str, Any]:
    header = cached.header
    return {
        "name": cached.folder.name,
        "teacher": header.key.teacher,
        "fingerprint": header.key.fingerprint,
        "data": header.key.data,
        "views": header.key.views,
        "videos": header.videos,
        "states": cached.counts(),
        "inexact": header.inexact,
        "dim": header.dim,
        "mb": _megabytes(cached.size),
        "built": header.built,
        "path": str(cached.folder),
    }


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


def _by_bytes() -> Iterator[tuple[str, list[str]]]:
    from ccl_cli.teachers.embedding_cache import Cached

    for folder in _folders():
        try:
            cached = Cached.open(folder)
        except DataError as error:
            yield folder.name, [error.message]
            continue
        right = cached.checksum() == cached.header.sha256
        yield folder.name, [] if right else ["its bytes are not those that were written"]


def _keys(experiment: Recipe) -> Iterator[tuple[str, Any, Any, Key]]:
    """Of each teacher that can be cached: its name, itself, the data set, and which cache serves it."""
    from ccl_cli.data.sources import load_data
    from ccl_cli.training.build import load_teachers
    from ccl_cli.training.caching import key_of

    manifest = load_data(experiment.data)
    teachers = load_teachers(experiment.teachers, manifest.classes)
    for name, each in teachers.items():
        key = key_of(name, each, manifest, experiment.cache, experiment.clip)
        if key is not None:
            yield name, each, manifest, key


def _of_experiment(experiment: Recipe) -> Iterator[tuple[str, list[str]]]:
    from ccl_cli.teachers.embedding_cache import Cached
    from ccl_cli.training.caching import check_cache

    for _, teacher, manifest, key in _keys(experiment):
        yield key.folder.name, check_cache(Cached.open(key.folder), teacher, manifest, experiment)


def _stale(experiment: Recipe) -> list[Path]:
    keys = [key for *_, key in _keys(experiment)]
    fitting = {key.folder for key in keys}
    same = {(key.teacher, key.data) for key in keys}
    return [
        cached.folder
        for cached in _all()
        if cached.folder not in fitting and (cached.header.key.teacher, cached.header.key.data) in same
    ]


def _named(name: str, there: dict[str, Path]) -> Path:
    if name not in there:
        raise UsageError(f"There is no cache '{name}'.", "`ccl cache ls` names them.")
    return there[name]


def _agreed(question: str) -> bool:
    return sys.stdin.isatty() and typer.confirm(question, err=True)
