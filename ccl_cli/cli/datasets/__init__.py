"""``ccl data``: list, show, prepare, check, pack and benchmark data sets."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import (
    DATA,
    OUTPUT,
    RUNTIME,
    complete_plugins,
    examples,
    executor_flags,
    group,
    with_verbosity,
)
from ccl_cli.cli.datasets import bench, info, pack, show, tables
from ccl_cli.errors import DataError, PluginError, UsageError

if TYPE_CHECKING:
    from ccl_cli.config.recipe import Executor
    from ccl_cli.config.spec import Spec
    from ccl_cli.data.checks.findings import Effort
    from ccl_cli.data.manifest import Manifest
    from ccl_cli.data.sources.about import ListMissing
    from ccl_cli.executors.part import Part

_log = logging.getLogger("ccl")

app = group(
    "List, show, prepare, check, pack and benchmark data sets.",
    "ccl data ls",
    "ccl data show folder:my_videos",
    "ccl data prepare ucf51 --videos /data/UCF-101",
    "ccl data check manifest:ucf51.jsonl",
    "ccl data pack ucf51 --output packed",
    "ccl data bench shards:packed",
)

DataSet = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Data set, e.g. ucf51, folder:my_videos or manifest:ucf51.jsonl.",
        autocompletion=complete_plugins("ccl.datasets"),
        show_default=False,
    ),
]
Frames = Annotated[
    int | None,
    typer.Option(min=1, help="Frames per clip. Default: the recipe's.", rich_help_panel=DATA),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of processes. Default: one per core.", rich_help_panel=RUNTIME),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Time limit per file; a file that exceeds it counts as corrupt. Default: 60, or 600 with "
        "--deep.",
        rich_help_panel=RUNTIME,
    ),
]
Show = Annotated[
    int, typer.Option(min=0, help="Number of files to print per problem.", rich_help_panel=OUTPUT)
]


@app.command("ls", epilog=examples("ccl data ls", "ccl data ls --json"))
@with_verbosity
def list_sources(as_json: options.AsJson = False) -> None:
    """List data sources, how to use them, and where to get published data sets."""
    from ccl_cli import registry
    from ccl_cli.data.sources.about import about

    sources = []
    for plugin in registry.plugins(registry.DATASETS):
        try:
            sources.append((plugin, about(registry.load(plugin))))
        except PluginError as error:
            _log.warning("%s", error.message)
    if as_json:
        print(json.dumps([tables.source_as_json(plugin, each) for plugin, each in sources]))
    else:
        tables.print_sources(sources)


_PART_CHECKED = "The same command without --part writes the manifest from the stored results."


@app.command(
    "prepare",
    epilog=examples(
        "ccl data prepare ucf51 --videos /data/UCF-101",
        "ccl data prepare 'activitynet?segments=trimmed' --videos /data/anet --output anet.jsonl",
        "ccl data prepare vggsound --videos /data/vggsound --yes",
        "ccl train --data manifest:ucf51.jsonl",
    ),
)
@with_verbosity
def prepare(
    name: DataSet,
    videos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder with the videos; subfolders are searched.", rich_help_panel=DATA
        ),
    ] = None,
    lists: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Official split lists. Default: inside or beside the videos.",
            rich_help_panel=DATA,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Download missing lists without confirmation.", rich_help_panel=DATA)
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Manifest to write. Default: NAME.jsonl in the working directory.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    frames: Frames = None,
    show: Show = 5,
    workers: Workers = None,
    timeout: Timeout = None,
    executor: options.Executor = None,
    part: options.Part = None,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
) -> None:
    """Check every listed video that is on disk, and write a manifest; with --part only check the part.

    Run the same command again to continue after an interruption. ccl never downloads videos.
    """
    from ccl_cli.config.load import load_recipe
    from ccl_cli.config.spec import parse_data
    from ccl_cli.data.checks.check import check as run_check
    from ccl_cli.data.checks.prepare import prepare as run

    experiment = load_recipe(None, executor_flags(executor))
    effort = _effort(workers, timeout, experiment.executor, part)
    spec = _located(parse_data(name), videos, lists)
    manifest = _listed(spec, yes)
    path = output or Path(f"{_short_name(spec.kind, manifest.name)}.jsonl")
    span = frames or experiment.clip.span
    share = _part_of(manifest, effort.part)
    whole = len(share.videos) == len(manifest.videos)
    report = run(manifest, path, effort, frames=span) if whole else run_check(share, effort, frames=span)
    if as_json:
        print(json.dumps({"manifest": str(path) if whole else None, **report.as_json()}))
    else:
        tables.print_report(report, show, per_class)
        print(f"Use it with --data manifest:{path}" if whole else _PART_CHECKED)


@app.command(
    "check",
    epilog=examples(
        "ccl data check ucf51 --per-class",
        "ccl data check folder:my_videos --deep",
        "ccl data check vggsound --executor slurm",
        "ccl data check manifest:ucf51.jsonl --output report.json",
    ),
)
@with_verbosity
def check(
    data: DataSet,
    deep: Annotated[bool, typer.Option("--deep", help="Decode all frames and all audio.")] = False,
    frames: Frames = None,
    show: Show = 5,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the full report as JSON.", rich_help_panel=OUTPUT),
    ] = None,
    workers: Workers = None,
    timeout: Timeout = None,
    executor: options.Executor = None,
    part: options.Part = None,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
) -> None:
    """Find missing, corrupt, silent, short and duplicate videos, and compute statistics.

    The results of --part are stored, and the same command without --part uses them.

    Exits with code 4 if a video is missing or corrupt. Run the same command again to continue after an
    interruption.
    """
    from ccl_cli.config.load import load_recipe
    from ccl_cli.data.checks.check import check as run
    from ccl_cli.data.sources import load_data
    from ccl_cli.utils.files import write_text

    experiment = load_recipe(None, executor_flags(executor))
    effort = _effort(workers, timeout, experiment.executor, part, deep)
    report = run(
        _part_of(load_data(data, ()), effort.part), effort, frames=frames or experiment.clip.span, deep=deep
    )
    if output:
        write_text(output, json.dumps(report.as_json(), indent=1) + "\n")
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        tables.print_report(report, show, per_class)
    if report.broken:
        raise DataError(
            f"{report.broken} of {len(report.manifest.videos)} videos are missing or corrupt.",
            f"'{output}' lists all of them." if output else "Use --output report.json to list all of them.",
        )


app.command("info", epilog=examples(*info.EXAMPLES))(with_verbosity(info.info))
app.command("pack", epilog=examples(*pack.EXAMPLES))(with_verbosity(pack.pack))
app.command("bench", epilog=examples(*bench.EXAMPLES))(with_verbosity(bench.bench))
app.command("show", epilog=examples(*show.EXAMPLES))(with_verbosity(show.show))


def _effort(
    workers: int | None, timeout: float | None, executor: Executor, part: str | None, deep: bool = False
) -> Effort:
    from ccl_cli import registry
    from ccl_cli.data.checks.findings import Effort
    from ccl_cli.executors.part import parse_part
    from ccl_cli.utils.processes import cores

    registry.find(registry.EXECUTORS, executor.name)
    return Effort(workers or cores(), timeout or (600.0 if deep else 60.0), executor, parse_part(part))


def _part_of(manifest: Manifest, part: Part) -> Manifest:
    """Return a data set of the videos of ``--part``."""
    import numpy as np

    rows = part.of(range(len(manifest.videos)))
    return replace(manifest, videos=manifest.videos.take(np.array(rows, np.int64)))


def _located(spec: Spec, videos: Path | None, lists: Path | None) -> Spec:
    """Apply ``--videos`` and ``--lists`` to a data set."""
    if videos is not None:
        if spec.name:
            raise UsageError(f"Both '{spec}' and --videos give a location.", "Use only one of them.")
        spec = replace(spec, name=str(videos))
    return spec if lists is None else replace(spec, options=spec.options | {"lists": str(lists)})


def _listed(spec: Spec, yes: bool) -> Manifest:
    """List the data set; download a missing split list first, if the user agrees."""
    from ccl_cli.data.sources import load_data
    from ccl_cli.data.sources.about import ListMissing

    try:
        return load_data(spec, ())
    except ListMissing as missing:
        if missing.list_file is None or missing.place is None or not (yes or _agreed(missing)):
            hint = f"{missing.hint}\n  or use --yes to download it"
            raise DataError(missing.message, hint) from missing
        from ccl_cli.data.checks.prepare import fetch_list
        from ccl_cli.utils.progress import download_bar

        _log.info("%s from %s", missing.list_file.title, missing.list_file.url)
        with download_bar(missing.list_file.name) as progress:
            fetch_list(missing.list_file, missing.place, progress)
        return load_data(spec, ())


def _agreed(missing: ListMissing) -> bool:
    file = missing.list_file
    if file is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(f"Download the {file.title} from {file.url} to '{missing.place}'?", err=True)


def _short_name(source: str, manifest: str) -> str:
    """Shorten ``ucf51-split1`` to ``ucf51``; the name of a folder stays as it is."""
    return source if manifest.startswith(source) else manifest.replace("/", "-")
