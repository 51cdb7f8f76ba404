"""``ccl embed``."""

from __future__ import annotations

from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ccl_cli.cli import options
from ccl_cli.cli.common import command, output_option, print_path
from ccl_cli.cli.videos.named import named_videos
from ccl_cli.utils import console

app = typer.Typer(add_completion=False)


@command(
    app,
    "embed",
    "ccl embed my_videos --output features.npz",
    "ccl embed my_videos --output features.parquet --executor slurm",
    "ccl embed model.safetensors a.mp4 b.mp4 --output features.safetensors",
)
def embed(
    paths: options.RunAndVideos,
    output: Annotated[
        Path,
        output_option(
            metavar="FILE",
            help="File to write; the suffix .npz, .safetensors or .parquet selects the format.",
        ),
    ],
    batch_size: options.ClipBatchSize = None,
    precision: options.ForwardPrecision = "fp32",
    workers: options.Workers = None,
    num_processes: options.NumProcesses = 1,
    executor: options.Executor = None,
    part: options.Part = None,
    as_json: options.AsJson = False,
) -> None:
    """Extract the features of video files with a trained student.

    Writes one vector per video, the mean over its windows, not normalised. Unreadable files are reported and
    skipped, and the command exits with code 4.
    """
    student, videos, unreadable, chosen = named_videos(paths, executor, part, num_processes)
    from ccl_cli.deploy.feature_file import check_features, feature_file
    from ccl_cli.deploy.predict import embed as embed_files
    from ccl_cli.executors.blocks import block_executor

    check_features(output)
    first = console.first_process()  # only the first process writes
    settings: Any = {"precision": precision, "batch_size": batch_size, "workers": workers}
    with (
        block_executor(chosen) as blocks,
        feature_file(output, student, precision) if first else nullcontext() as file,
        closing(embed_files(student, videos, executor=blocks, **settings)) as features,
    ):
        for feature in features:
            if feature.fault:
                unreadable.add(str(feature.video.path), feature.fault)
            if file:
                file.add(feature)
    print_path(output, as_json)
    unreadable.check()
