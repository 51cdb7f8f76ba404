"""``ccl data pack``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from ccl_cli.cli import options
from ccl_cli.cli.common import (
    chosen_executor,
    data_option,
    output_option,
    print_result,
)
from ccl_cli.cli.datasets.check import DataSet
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
Output = Annotated[Path, output_option(metavar="DIR", help="Output folder for the shards.")]
ShortSide = Annotated[int, data_option(min=16, help="Resize larger frames to this short side, in pixels.")]
FrameRate = Annotated[
    float | None, data_option(min=0.1, help="Maximum frame rate. Default: keep all frames.")
]
Format = Annotated[
    Literal["jpeg", "mp4"], data_option("--format", help="jpeg reads fastest; mp4 is smallest.")
]
Quality = Annotated[
    int | None,
    data_option(help="JPEG quality (1 to 95, default 85), or H.264 rate factor (0 to 51, default 20)."),
]
Audio = Annotated[bool, data_option("--audio/--no-audio", help="Include audio.")]
AudioRate = Annotated[int, data_option(min=1000, help="Sample rate of the packed audio, in Hz.")]
MaxUnreadable = Annotated[
    float | None,
    data_option(min=0, max=1, help="Maximum fraction of unreadable videos per split. Default: 0.05."),
]
ShardSize = Annotated[int, output_option(min=1, metavar="MB", help="Size of a shard.")]


def pack(
    data: DataSet,
    output: Output,
    short_side: ShortSide = 128,
    fps: FrameRate = None,
    form: Format = "jpeg",
    quality: Quality = None,
    audio: Audio = True,
    audio_rate: AudioRate = 32_000,
    max_unreadable: MaxUnreadable = None,
    shard_size: ShardSize = 256,
    workers: options.Workers = None,
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
    print_result(result, as_json, lambda: _show(result))


def _show(result: Mapping[str, Any]) -> None:
    columns = ["split", "videos", "packed", "shards", "MB", "minutes", "kB/s", "sound", "silent", "no track"]
    console.print_table(columns, [_row(name, each) for name, each in result["splits"].items()])
    unreadable = result["unreadable"]
    for name, reason in list(unreadable.items())[:10]:
        print(visible(f"skipped: {name}: {reason}"))
    print(f"skipped: {len(unreadable)} in all, listed in index.json" if unreadable else "")
    print(f"Train with it: ccl train --data {shlex.quote('shards:' + result['folder'])}")


def _row(name: str, each: Mapping[str, Any]) -> tuple[str, ...]:
    rate = each["bytes"] / 1000 / each["seconds"] if each["seconds"] else 0.0
    counts = [each["videos"], each["packed"], each["shards"]]
    states = [each["sound"].get(state, 0) for state in ("present", "silent", "no track")]
    size, minutes = f"{each['bytes'] / 1e6:.1f}", f"{each['seconds'] / 60:.1f}"
    return name, *map(str, counts), size, minutes, f"{rate:.0f}", *map(str, states)
