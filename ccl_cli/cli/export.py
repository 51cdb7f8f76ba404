"""``ccl export``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import DATA, OUTPUT, examples, with_verbosity
from ccl_cli.utils import console

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "ccl export --output exported                      newest run, both formats",
        "ccl export runs/mine/20260101-120000-1a2b3c4d --output exported --int8",
        "ccl export model.safetensors --output exported --format onnx --clips my_videos",
    )
)
@with_verbosity
def export(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN|MODEL", help="A run's folder, or a model file; default the newest run."),
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="A new folder for the files.", rich_help_panel=OUTPUT)
    ] = ...,  # type: ignore[assignment]
    format_: Annotated[
        Literal["onnx", "torch", "both"],
        typer.Option("--format", help="model.onnx, model.pt2 (torch.export) or both."),
    ] = "both",
    int8: Annotated[
        bool, typer.Option("--int8", help="Also an ONNX file in eight bits, with what it costs.")
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Largest difference from torch, as a share of the output's largest value."
        ),
    ] = 1e-4,
    clips: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Videos to compare on, or a folder of them; repeat it for more. Default: the run's test "
            "videos.",
            rich_help_panel=DATA,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a trained student as ONNX and torch.export files, checked.

    Each file takes bytes and is compared with torch on real clips; one that differs is not written.
    """
    from ccl_cli.deploy.export import export_model
    from ccl_cli.utils.signals import stopping_here

    formats = ("onnx", "torch") if format_ == "both" else (format_,)
    with stopping_here("; nothing was written.", "The same command begins anew."):
        result = export_model(run, output, formats=formats, int8=int8, tolerance=tolerance, clips=clips or ())
    if as_json:
        print(json.dumps(result))
    else:
        _show(result, output)


def _show(result: Mapping[str, Any], output: Path) -> None:
    from ccl_cli.deploy.export import FILES, INT8, ONNX, TORCH

    speed = result["speed"]
    rows = []
    for name, milliseconds in speed["ms"].items():
        size, differences = result["bytes"].get(name, 0), result["difference"].get(name, {})
        differs = [_difference(differences.get(key)) for key in ("logits", "feature")]
        rows.append(
            (FILES.get(name, TORCH), f"{size / 1e6:.1f}" if size else "", f"{milliseconds:.1f}", *differs)
        )
    console.print_table(["", "MB", "ms per clip", "logits differ by", "feature differs by"], rows)
    threads, batches = speed["threads"], " and ".join(map(str, result["batches"]))
    print(
        f"\nLargest difference from torch, of torch's largest value, in batches of {batches}\n"
        f"of {result['clips']}. Times: median of {speed['rounds']} in turns, {threads} "
        f"thread{'s'[: threads - 1]}."
    )
    if "int8" in result:
        print("\n".join(_about_int8(result["int8"], speed["ms"][ONNX], speed["ms"][INT8])))
    print(f"\n{output}")


def _difference(difference: Mapping[str, float] | None) -> str:
    return "" if difference is None else f"{difference['max_abs']:.1e} of {difference['largest']:.2g}"


def _about_int8(int8: Mapping[str, Any], float32_ms: float, int8_ms: float) -> list[str]:
    accuracy, clips = int8["accuracy"], int8["calibration_clips"]
    lines = [f"\nint8, its ranges set by {clips} clip{'s'[: clips - 1]}:"]
    if accuracy is None:
        lines.append("  what it costs in accuracy is not known: the run's test videos are not here")
    else:
        before, after = accuracy["top1"].values()
        whole = "" if accuracy["videos"] == accuracy["of"] else f" of {accuracy['of']:,}"
        lines += [
            f"  top-1 {after:.1f} %, float32 {before:.1f} %; the same class in {accuracy['agree']:.1f} %",
            f"  (one clip of each of {accuracy['videos']:,}{whole} test videos)",
        ]
    ratio = int8_ms / float32_ms
    if ratio > 1:
        lines.append(f"  {ratio:.1f} times as slow as float32 on this machine: only its file is smaller")
    else:
        lines.append(f"  {1 / ratio:.1f} times as fast as float32 on this machine")
    return lines
