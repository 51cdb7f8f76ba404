"""``ccl data pack``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import DATA, OUTPUT, RUNTIME, chosen_executor, complete_plugins
from ccl_cli.errors import UsageError
from ccl_cli.utils import console
from ccl_cli.utils.text import visible

EXAMPLES = (
    "ccl data pack ucf51 --output packed",
    "ccl data pack folder:my_videos --output packed --format mp4 --quality 23",
    "ccl data pack csv:kinetics.csv --output packed --short-side 256 --fps 15 --executor slurm",
    "ccl train --recipe mine.yaml --data shards:packed",
)
_QUALITIES = {"jpeg": (1, 95), "mp4": (0, 51)}
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE[:PATH]",
        help="Data set, e.g. ucf51 or folder:my_videos.",
        autocompletion=complete_plugins("ccl.datasets"),
    ),
]
Output = Annotated[
    Path, typer.Option(metavar="DIR", help="Output folder for the shards.", rich_help_panel=OUTPUT)
]
ShortSide = Annotated[
    int,
    typer.Option(min=16, help="Resize larger frames to this short side, in pixels.", rich_help_panel=DATA),
]
FrameRate = Annotated[
    float | None,
    typer.Option(min=0.1, help="Maximum frame rate. Default: keep all frames.", rich_help_panel=DATA),
]
Format = Annotated[
    Literal["jpeg", "mp4"],
    typer.Option("--format", help="jpeg reads fastest; mp4 is smallest.", rich_help_panel=DATA),
]
Quality = Annotated[
    int | None,
    typer.Option(
        help="JPEG quality (1 to 95, default 85), or H.264 rate factor (0 to 51, default 20).",
        rich_help_panel=DATA,
    ),
]
Audio = Annotated[bool, typer.Option("--audio/--no-audio", help="Include audio.", rich_help_panel=DATA)]
AudioRate = Annotated[
    int, typer.Option(min=1000, help="Sample rate of the packed audio, in Hz.", rich_help_panel=DATA)
]
MaxUnreadable = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Maximum fraction of unreadable videos per split. Default: 0.05.",
        rich_help_panel=DATA,
    ),
]
ShardSize = Annotated[int, typer.Option(min=1, metavar="MB", help="Size of a shard.", rich_help_panel=OUTPUT)]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Number of encoding processes. Default: one per core.", rich_help_panel=RUNTIME),
]


def pack(
    data: Source,
    output: Output,
    short_side: ShortSide = 128,
    fps: FrameRate = None,
    form: Format = "jpeg",
    quality: Quality = None,
    audio: Audio = True,
    audio_rate: AudioRate = 32_000,
    max_unreadable: MaxUnreadable = None,
    shard_size: ShardSize = 256,
    workers: Workers = None,
    executor: options.Executor = None,
    part: options.Part = None,
    as_json: options.AsJson = False,
) -> None:
    """Re-encode a data set into shards, which training reads many times faster.

    Train on them with --data shards:DIR. Run the same command again to continue after an interruption.
    """
    from ccl_cli.config.recipe import Recipe
    from ccl_cli.data.shards.encode import QUALITY, Settings
    from ccl_cli.data.shards.write import pack as run
    from ccl_cli.executors.part import parse_part

    share = parse_part(part)

    quality = QUALITY[form] if quality is None else quality
    low, high = _QUALITIES[form]
    if not low <= quality <= high:
        raise UsageError(f"--quality must be between {low} and {high} for --format {form}, not {quality}.")
    result = run(
        data,
        output,
        Settings(short_side, fps, form, quality, audio_rate if audio else None),
        workers=workers,
        shard_size=shard_size * 10**6,
        max_unreadable=Recipe().max_unreadable if max_unreadable is None else max_unreadable,
        executor=chosen_executor(executor, share),
        part=share,
    )
    if as_json:
        print(json.dumps(result))
    else:
        _show(result)


def _show(result: Mapping[str, Any]) -> None:
    columns = ["split", "videos", "packed", "shards", "MB", "minutes", "kB/s", "sound", "silent", "no track"]
    console.print_table(columns, [_row(name, each) for name, each in result["splits"].items()])
    for name, reason in list(result["unreadable"].items())[:10]:
        print(visible(f"skipped: {name}: {reason}"))
    if len(result["unreadable"]) > 10:
        print(f"skipped: {len(result['unreadable']) - 10} more, listed in index.json")
    print(f"\nTrain with it: ccl train --data {shlex.quote('shards:' + result['folder'])}")


def _row(name: str, each: Mapping[str, Any]) -> tuple[str, ...]:
    rate = each["bytes"] / 1000 / each["seconds"] if each["seconds"] else 0.0
    sound = each["sound"]
    return (
        name,
        *(str(each[key]) for key in ("videos", "packed", "shards")),
        f"{each['bytes'] / 1e6:.1f}",
        f"{each['seconds'] / 60:.1f}",
        f"{rate:.0f}",
        *(str(sound.get(state, 0)) for state in ("present", "silent", "no track")),
    )
