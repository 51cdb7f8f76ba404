"""``ccl data check`` and ``ccl data prepare``."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import (
    complete_plugins,
    data_option,
    executor_flags,
    output_option,
    print_result,
    runtime_option,
)
from ccl_cli.errors import DataError, UsageError
from ccl_cli.utils import console
from ccl_cli.utils.text import visible

if TYPE_CHECKING:
    from ccl_cli.config.spec import Spec
    from ccl_cli.data.checks.check import Report
    from ccl_cli.data.checks.findings import Effort
    from ccl_cli.data.manifest import Manifest
    from ccl_cli.data.sources.about import ListMissing

_SIZES = 8  # frame sizes to print, most common first
_log = logging.getLogger("ccl")

PREPARE = (
    "ccl data prepare ucf51 --videos /data/UCF-101",
    "ccl data prepare 'activitynet?segments=trimmed' --videos /data/anet --output anet.jsonl",
    "ccl data prepare vggsound --videos /data/vggsound --yes",
    "ccl train --data manifest:ucf51.jsonl",
)
CHECK = (
    "ccl data check ucf51 --per-class",
    "ccl data check folder:my_videos --deep",
    "ccl data check vggsound --executor slurm",
    "ccl data check manifest:ucf51.jsonl --output report.json",
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
Frames = Annotated[int | None, data_option(min=1, help="Frames per clip. Default: the recipe's.")]
Show = Annotated[int, output_option(min=0, help="Number of files to print per problem.")]
Timeout = Annotated[
    float | None,
    runtime_option(
        min=1,
        metavar="SECONDS",
        help="Time limit per file, beyond which it counts as corrupt. Default: 60, or 600 with --deep.",
    ),
]


def prepare(
    name: DataSet,
    videos: Annotated[
        Path | None,
        data_option(metavar="DIR", help="Folder with the videos; subfolders are searched."),
    ] = None,
    lists: Annotated[
        Path | None,
        data_option(metavar="PATH", help="Official split lists. Default: inside or beside the videos."),
    ] = None,
    yes: Annotated[bool, data_option("--yes", help="Download missing lists without confirmation.")] = False,
    output: Annotated[
        Path | None,
        output_option(
            metavar="FILE", help="Manifest to write. Default: NAME.jsonl in the working directory."
        ),
    ] = None,
    frames: Frames = None,
    show: Show = 5,
    workers: options.Workers = None,
    timeout: Timeout = None,
    executor: options.Executor = None,
    part: options.Part = None,
    per_class: options.PerClass = False,
    as_json: options.AsJson = False,
) -> None:
    """Check every listed video that is on disk, and write a manifest; with --part only check the part.

    Run the same command again to continue after an interruption. ccl never downloads videos.
    """
    from ccl_cli.config.spec import parse_data
    from ccl_cli.data.checks.check import check as run_check
    from ccl_cli.data.checks.prepare import prepare as run

    effort, span = _effort(workers, timeout, executor, frames)
    spec = _located(parse_data(name), videos, lists)
    manifest = _listed(spec, yes)
    share = _part_of(manifest, part)
    written = None
    if len(share.videos) < len(manifest.videos):
        report = run_check(share, effort, frames=span)
        advice = "The same command without --part writes the manifest from the stored results."
    else:
        # ucf51.jsonl for ucf51-split1; the name of a folder stays as it is.
        short = spec.kind if manifest.name.startswith(spec.kind) else manifest.name.replace("/", "-")
        written = str(output or f"{short}.jsonl")
        report = run(manifest, Path(written), effort, frames=span)
        advice = f"Use it with --data manifest:{written}"
    result = {"manifest": written, **report.as_json()} if as_json else None
    print_result(result, as_json, lambda: _print_report(report, show, per_class, advice))


def check(
    data: DataSet,
    deep: Annotated[bool, typer.Option("--deep", help="Decode all frames and all audio.")] = False,
    frames: Frames = None,
    show: Show = 5,
    output: Annotated[
        Path | None, output_option(metavar="FILE", help="Write the full report as JSON.")
    ] = None,
    workers: options.Workers = None,
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
    from ccl_cli.data.checks.check import check as run
    from ccl_cli.data.sources import load_data
    from ccl_cli.utils.files import write_text

    effort, span = _effort(workers, timeout, executor, frames, 600 if deep else 60)
    report = run(_part_of(load_data(data, ()), part), effort, frames=span, deep=deep)
    result = report.as_json()
    if output:
        write_text(output, json.dumps(result, indent=1) + "\n")
    print_result(result, as_json, lambda: _print_report(report, show, per_class))
    if report.broken:
        raise DataError(
            f"{report.broken} of {len(report.manifest.videos)} videos are missing or corrupt.",
            f"'{output}' lists all of them." if output else "Use --output report.json to list all of them.",
        )


def _effort(
    workers: int | None, timeout: float | None, executor: str | None, frames: int | None, usual: float = 60
) -> tuple[Effort, int]:
    """Resources of a check, and the number of frames of a clip."""
    from ccl_cli import registry
    from ccl_cli.config.load import load_recipe
    from ccl_cli.data.checks.findings import Effort
    from ccl_cli.utils.processes import cores

    recipe = load_recipe(None, executor_flags(executor))
    registry.find(registry.EXECUTORS, recipe.executor.name)
    effort = Effort(workers or cores(), timeout or usual, recipe.executor)
    return effort, frames or recipe.clip.span


def _part_of(manifest: Manifest, part: str | None) -> Manifest:
    """Return a data set of the videos of ``--part``."""
    import numpy as np

    from ccl_cli.executors.part import parse_part

    rows = parse_part(part).of(range(len(manifest.videos)))
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
    from ccl_cli.data.checks.prepare import fetch_list
    from ccl_cli.data.sources import load_data
    from ccl_cli.data.sources.about import ListMissing
    from ccl_cli.utils.progress import download_bar

    try:
        return load_data(spec, ())
    except ListMissing as missing:
        if not (yes or _agreed(missing)):
            raise
        _log.info("%s from %s", missing.list_file.title, missing.list_file.url)
        with download_bar(missing.list_file.name) as progress:
            fetch_list(missing.list_file, missing.place, progress)
        return load_data(spec, ())


def _agreed(missing: ListMissing) -> bool:
    file = missing.list_file
    question = f"Download the {file.title} from {file.url} to '{missing.place}'?"
    return sys.stdin.isatty() and sys.stderr.isatty() and typer.confirm(question, err=True)


def _print_report(report: Report, show: int, per_class: bool, advice: str = "") -> None:
    """Print counts, the first files of each problem, percentiles and frame sizes."""
    from ccl_cli.data.checks.check import COLUMNS, PERCENTILES, PROBLEMS

    if per_class:
        rows = [
            [name, split, *map(str, counts.values())]
            for split, classes in report.classes.items()
            for name, counts in classes.items()
        ]
        _print_table(["class", "split", *COLUMNS], rows)
    rows = [
        [split, *map(str, counts.values()), f"{report.hours(split):.2f}"]
        for split, counts in report.splits.items()
    ]
    _print_table(["split", *COLUMNS, "hours"], rows)
    for problem in PROBLEMS if show else ():
        of_kind = [each for each in report.problems if each.problem == problem]
        for each in of_kind[:show]:
            print(f"{problem:<10} {visible(each.path)}: {visible(each.reason)}")
        if len(of_kind) > show:
            print(f"{problem:<10} and {len(of_kind) - show} more")
    rows = [
        ["frames/s" if measure == "rate" else measure, split, *(f"{value:.6g}" for value in values.values())]
        for split in report.splits
        for measure, values in report.percentiles(split).items()
    ]
    if rows:
        names = {0: "least", 50: "median", 100: "most"}
        _print_table(["of a video", "split", *(names.get(each, f"{each} %") for each in PERCENTILES)], rows)
        sizes = [f"{width}x{height} ({count})" for (width, height), count in report.sizes.most_common(_SIZES)]
        print(f"Frame sizes: {', '.join(sizes)}{', ...' * (len(report.sizes) > _SIZES)}")
    print(f"{len(report.manifest.classes)} classes, hash {report.manifest.hash}")
    if advice:
        print(advice)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    console.print_table(columns, rows)
    print()
