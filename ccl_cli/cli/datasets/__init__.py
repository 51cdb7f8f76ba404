"""``ccl data``: list, show, prepare, check, pack and measure data sets."""

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

_log = logging.getLogger("ccl")

app = group(
    "List, show, prepare, check, pack and measure data sets.",
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
    typer.Option(min=1, help="Frames of a clip; default the recipe's.", rich_help_panel=DATA),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes; default one per core.", rich_help_panel=RUNTIME),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Time for one file, after which it counts as corrupt; default 60, with --deep 600.",
        rich_help_panel=RUNTIME,
    ),
]
Show = Annotated[int, typer.Option(min=0, help="Files to print of each problem.", rich_help_panel=OUTPUT)]


@app.command("ls", epilog=examples("ccl data ls", "ccl data ls --json"))
@with_verbosity
def list_sources(as_json: options.AsJson = False) -> None:
    """List data sources: what each is, what to type, and where published sets are to be had."""
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
        typer.Option(metavar="DIR", help="Where the videos are, in folders or not.", rich_help_panel=DATA),
    ] = None,
    lists: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The official lists; default inside or beside the videos.",
            rich_help_panel=DATA,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Download missing lists without asking.", rich_help_panel=DATA)
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The manifest; default NAME.jsonl here.", rich_help_panel=OUTPUT),
    ] = None,
    frames: Frames = None,
    show: Show = 5,
    workers: Workers = None,
    timeout: Timeout = None,
    executor: options.Executor = None,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
) -> None:
    """Check every listed video that you have, and write a manifest.

    Give the same command again to go on after an interruption. Videos are never downloaded.
    """
    from ccl_cli.config.load import load_recipe
    from ccl_cli.config.spec import parse_data
    from ccl_cli.data.checks.prepare import prepare as run

    experiment = load_recipe(None, executor_flags(executor))
    effort = _effort(workers, timeout, experiment.executor)
    spec = _located(parse_data(name), videos, lists)
    manifest = _listed(spec, yes)
    path = output or Path(f"{_short_name(spec.kind, manifest.name)}.jsonl")
    report = run(manifest, path, effort, frames=frames or experiment.clip.span)
    if as_json:
        print(json.dumps({"manifest": str(path), **report.as_json()}))
    else:
        tables.print_report(report, show, per_class)
        print(f"Use it with --data manifest:{path}")


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
    deep: Annotated[bool, typer.Option("--deep", help="Decode all frames and all sound.")] = False,
    frames: Frames = None,
    show: Show = 5,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all of it as JSON.", rich_help_panel=OUTPUT),
    ] = None,
    workers: Workers = None,
    timeout: Timeout = None,
    executor: options.Executor = None,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
) -> None:
    """Find missing, corrupt, silent, short and duplicate videos, and count and measure all of them.

    Exit code 4 if any is missing or corrupt. Give the same command again to go on after an interruption.
    """
    from ccl_cli.config.load import load_recipe
    from ccl_cli.data.checks.check import check as run
    from ccl_cli.data.sources import load_data
    from ccl_cli.utils.files import write_text

    experiment = load_recipe(None, executor_flags(executor))
    effort = _effort(workers, timeout, experiment.executor, deep)
    report = run(load_data(data, ()), effort, frames=frames or experiment.clip.span, deep=deep)
    if output:
        write_text(output, json.dumps(report.as_json(), indent=1) + "\n")
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        tables.print_report(report, show, per_class)
    if report.broken:
        raise DataError(
            f"{report.broken} of {len(report.manifest.videos)} videos are missing or corrupt.",
            f"All are in '{output}'." if output else "--output report.json writes all of them to a file.",
        )


app.command("info", epilog=examples(*info.EXAMPLES))(with_verbosity(info.info))
app.command("pack", epilog=examples(*pack.EXAMPLES))(with_verbosity(pack.pack))
app.command("bench", epilog=examples(*bench.EXAMPLES))(with_verbosity(bench.bench))
app.command("show", epilog=examples(*show.EXAMPLES))(with_verbosity(show.show))


def _effort(workers: int | None, timeout: float | None, executor: Executor, deep: bool = False) -> Effort:
    from ccl_cli import registry
    from ccl_cli.data.checks.findings import Effort
    from ccl_cli.utils.processes import cores

    registry.find(registry.EXECUTORS, executor.name)
    return Effort(workers or cores(), timeout or (600.0 if deep else 60.0), executor)


def _located(spec: Spec, videos: Path | None, lists: Path | None) -> Spec:
    """The data set at the places that flags name."""
    if videos is not None:
        if spec.name:
            raise UsageError(
                f"'{spec}' names a place, and --videos another one.", "Name it once: either will do."
            )
        spec = replace(spec, name=str(videos))
    return spec if lists is None else replace(spec, options=spec.options | {"lists": str(lists)})


def _listed(spec: Spec, yes: bool) -> Manifest:
    """The data set; a list that is missing is fetched first, where the user agrees."""
    from ccl_cli.data.sources import load_data
    from ccl_cli.data.sources.about import ListMissing

    try:
        return load_data(spec, ())
    except ListMissing as missing:
        if missing.list_file is None or missing.place is None or not (yes or _agreed(missing)):
            hint = f"{missing.hint}\n  or add --yes, which downloads it"
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
    """``ucf51`` of ``ucf51-split1``; a folder's own name."""
    return source if manifest.startswith(source) else manifest.replace("/", "-")
