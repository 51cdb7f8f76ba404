"""``ccl model export``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import data_option, output_option, print_result
from ccl_cli.utils import console

EXAMPLES = (
    "ccl model export --output exported               newest run, both formats",
    "ccl model export runs/mine/a --output exported --int8",
    "ccl model export model.safetensors --output exported --clips my_videos",
)


def export(
    output: Annotated[Path, output_option(metavar="DIR", help="New folder for the files.")],
    run: options.Run = None,
    format_: Annotated[
        Literal["onnx", "torch", "both"],
        typer.Option("--format", help="Format to write: model.onnx, model.pt2 (torch.export) or both."),
    ] = "both",
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Also write an int8 ONNX model, and measure its accuracy and speed."),
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Maximum difference from torch, relative to the largest output value."
        ),
    ] = 1e-4,
    clips: Annotated[
        list[Path] | None,
        data_option(
            metavar="PATH",
            help="Video file or folder to compare on. Repeatable. Default: the run's test videos.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Export a trained student to ONNX and torch.export files.

    Each file takes uint8 frames. Its outputs are compared with torch on real clips before it is written.
    """
    from ccl_cli.deploy.export import export_model
    from ccl_cli.utils.signals import stopping_here

    formats = ("onnx", "torch") if format_ == "both" else (format_,)
    with stopping_here("; nothing was written.", "Run the same command to start again."):
        result = export_model(run, output, formats=formats, int8=int8, tolerance=tolerance, clips=clips or ())
    print_result(result, as_json, lambda: _print(result, output))


def _print(result: Mapping[str, Any], output: Path) -> None:
    from ccl_cli.deploy.export import FILES, INT8, ONNX, TORCH

    speed, rows = result["speed"], []
    for name, milliseconds in speed["ms"].items():
        row = [FILES.get(name, TORCH), "", f"{milliseconds:.1f}", "", ""]
        if name in result["bytes"]:
            row[1] = f"{result['bytes'][name] / 1e6:.1f}"
            differences = (result["difference"][name][key] for key in ("logits", "feature"))
            row[3:] = [f"{each['max_abs']:.1e} of {each['largest']:.2g}" for each in differences]
        rows.append(row)
    console.print_table(["", "MB", "ms per clip", "logits differ by", "feature differs by"], rows)
    batches = " and ".join(map(str, result["batches"]))
    print(
        f"\nLargest difference from torch and torch's largest value, in batches of {batches}\n"
        f"of {result['clips']}. Times: median of {speed['rounds']} interleaved calls; "
        f"threads: {speed['threads']}."
    )
    if "int8" in result:
        _print_int8(result["int8"], speedup=speed["ms"][ONNX] / speed["ms"][INT8])
    print(f"\n{output}")


def _print_int8(int8: Mapping[str, Any], speedup: float) -> None:
    """Print the accuracy and the speed of the int8 model relative to float32."""
    accuracy = int8["accuracy"]
    rows = [("clips for calibration", f"{int8['calibration_clips']}"), ("speed", f"{speedup:.1f} x float32")]
    if accuracy is None:
        rows.append(("accuracy", "unknown: the run's test videos are not on disk"))
    else:
        float32, quantised = accuracy["top1"].values()
        rows += [
            ("top-1", f"{quantised:.1f} %, float32 {float32:.1f} %"),
            ("same class as float32", f"{accuracy['agree']:.1f} %"),
            ("test videos, one clip each", f"{accuracy['videos']:,} of {accuracy['of']:,}"),
        ]
    print()
    console.print_table(["int8", ""], rows)
