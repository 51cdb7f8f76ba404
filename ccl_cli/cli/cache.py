"""``ccl cache``: precomputed embeddings of frozen teachers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, executor_flags, group, print_paths, print_result, start_processes
from ccl_cli.errors import DataError, UsageError
from ccl_cli.utils import console

if TYPE_CHECKING:
    from pathlib import Path

    from ccl_cli.config.recipe import Recipe

app = group(
    "Precompute the embeddings of frozen teachers for training.",
    "ccl cache build --data ucf51 --teacher audio:cnn14 --teacher image:resnet34",
    "ccl cache build --recipe ucf51 --num-processes 4",
    "ccl cache ls",
    "ccl cache verify --recipe ucf51",
    "ccl cache prune --stale --recipe ucf51",
)

_log = logging.getLogger("ccl")

Views = Annotated[
    int | None,
    typer.Option(
        "--views",
        min=1,
        help="Cached views of each video: frames, or clips for clip teachers. Default: the recipe's (8).",
    ),
]


@command(
    app,
    "build",
    "ccl cache build --data ucf51 --teacher audio:cnn14 --teacher image:resnet34",
    "ccl cache build --recipe mine.yaml --views 16 --num-processes 4",
    "ccl cache build --recipe mine.yaml --executor slurm",
)
def build(
    recipe: options.RecipeName = None,
    data: options.Data = None,
    teacher: options.Teachers = None,
    views: Views = None,
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    executor: options.Executor = None,
    part: options.Part = None,
    set_: options.Overrides = None,
    as_json: options.AsJson = False,
) -> None:
    """Embed every video of the training split. Existing embeddings are kept."""
    from ccl_cli import registry
    from ccl_cli.executors.part import WHOLE, parse_part

    experiment = _experiment(recipe, data, teacher, views, workers, set_, executor_flags(executor))
    share = parse_part(part)
    # Options take precedence over the executor of a recipe or the environment.
    here = executor is None and (share != WHOLE or num_processes > 1)
    elsewhere = experiment.executor.name != "local" and not here
    registry.find(registry.EXECUTORS, experiment.executor.name)
    start_processes(num_processes, *["--part"] * (share != WHOLE), *["--executor"] * elsewhere)
    from ccl_cli.data.sources import load_data
    from ccl_cli.training.build import load_teachers
    from ccl_cli.training.cache.parts import build_by_executor, build_part
    from ccl_cli.training.cache.read import is_exact

    manifest = load_data(experiment.data)
    networks = load_teachers(experiment.teachers, manifest.classes)
    paths = []
    for spec, (name, network) in zip(experiment.teachers, networks.items(), strict=True):
        own = experiment.model_copy(update={"teachers": (spec,)})
        cached = (
            build_by_executor(name, network, manifest, own)
            if elsewhere
            else build_part(name, network, manifest, own, share)
        )
        if cached is None:
            _log.info("%s: part %s is done; other parts are not.", name, part)
            continue
        paths.append(str(cached.folder))
        if console.first_process() and experiment.cache.use != "build":
            is_exact(cached, experiment.clip)
    print_paths(paths, as_json)


@command(app, "ls", "ccl cache ls", "ccl cache ls --json")
def list_caches(as_json: options.AsJson = False) -> None:
    """List the caches on this machine."""
    from ccl_cli.teachers.embedding_cache import folder_bytes, unfinished
    from ccl_cli.training.cache.checks import cache_records

    records = list(cache_records())
    columns = ("name", "data", "views", "videos", "present", "mb")
    rows = [[str({**each, **each["states"]}.get(column, 0)) for column in columns] for each in records]

    def print_text() -> None:
        console.print_table(["cache", "data", "views", "videos", "with embedding", "MB"], rows)
        for folder in unfinished():
            size = _megabytes(folder_bytes(folder))
            print(f"{folder.name}: unfinished, {size} MB; run `ccl cache build` again to continue.")

    print_result(records, as_json, print_text)


@command(app, "verify", "ccl cache verify --recipe mine.yaml", "ccl cache verify")
def verify(
    recipe: options.RecipeName = None,
    data: options.Data = None,
    teacher: options.Teachers = None,
    views: Views = None,
    set_: options.Overrides = None,
    as_json: options.AsJson = False,
) -> None:
    """Verify the checksums of all caches or, for a recipe or data set, recompute some embeddings."""
    from ccl_cli.training.cache.checks import check_bytes, check_embeddings

    if recipe or data or teacher:
        checks = check_embeddings(_experiment(recipe, data, teacher, views, 0, set_))
    else:
        checks = check_bytes()
    faults = dict(checks)
    lines = [f"{name}: {'; '.join(wrong) or 'ok'}" for name, wrong in faults.items()]
    print_result(faults, as_json, lambda: print(*lines, sep="\n"))
    count = sum(map(len, faults.values()))
    if count:
        raise DataError(
            f"Found {count} problems in the caches.",
            "Delete the caches with `ccl cache prune NAME` and build them again.",
        )


@command(app, "prune", "ccl cache prune --stale --recipe mine.yaml", "ccl cache prune --all --yes")
def prune(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of caches, as shown by `ccl cache ls`.")
    ] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Delete outdated caches of the recipe's teachers and data set.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Delete all caches.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False,
    recipe: options.RecipeName = None,
    data: options.Data = None,
    teacher: options.Teachers = None,
    views: Views = None,
    set_: options.Overrides = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete caches and unfinished builds."""
    from ccl_cli.teachers.embedding_cache import caches, folder_bytes, remove, root, unfinished

    if sum([bool(names), stale, everything]) != 1:
        raise UsageError(
            "Select the caches to delete in one way.", "Name them, or use --stale, or use --all."
        )
    if stale:
        from ccl_cli.training.cache.checks import stale_caches

        folders = stale_caches(_experiment(recipe, data, teacher, views, 0, set_))
    else:
        folders = [*caches(), *unfinished()] if everything else _named(names or [])
    total = _megabytes(sum(map(folder_bytes, folders)))
    question = f"Delete {len(folders)} caches from {root()}, {total} MB?"
    if folders and not yes and not (sys.stdin.isatty() and typer.confirm(question, err=True)):
        raise UsageError("Nothing was deleted.", "Use --yes to delete without confirmation.")
    for folder in folders:
        remove(folder)
    deleted = [folder.name for folder in folders]
    lines = [*deleted, f"Deleted {len(folders)}, {total} MB."] if folders else ["Nothing to delete."]
    print_result({"deleted": deleted}, as_json, lambda: print(*lines, sep="\n"))


def _experiment(
    recipe: str | None,
    data: str | None,
    teacher: list[str] | None,
    views: int | None,
    workers: int | None,
    overrides: list[str] | None,
    further: Mapping[str, Any] | None = None,
) -> Recipe:
    from ccl_cli.config.load import load_recipe

    flags = {"data": data, "teachers": teacher, "cache.views": views, "train.workers": workers}
    experiment = load_recipe(recipe, {**flags, **(further or {})}, overrides or ())
    if not experiment.teachers:
        raise UsageError("No teacher was named.", "Add --teacher, for example --teacher image:resnet34.")
    return experiment


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


def _named(names: list[str]) -> list[Path]:
    """Return the folders of the named caches."""
    from ccl_cli.teachers.embedding_cache import caches
    from ccl_cli.utils.sentences import check_known

    folders = {folder.name: folder for folder in caches()}
    for name in names:
        check_known("cache", name, folders)
    return [folders[name] for name in names]
