"""``samples.png`` in the run's folder: a picture of the first batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ccl_cli.data.clips.dataset import LoadedBatch
from ccl_cli.data.clips.sample_sheet import sample_sheet
from ccl_cli.training.build import Parts
from ccl_cli.training.run.folder import CELL, SAMPLES
from ccl_cli.training.run.trackers import log_picture
from ccl_cli.utils.distributed import is_main
from ccl_cli.utils.files import atomic_path

if TYPE_CHECKING:
    from ccl_cli.training.trainer import Trainer

_log = logging.getLogger("ccl")


def with_sample_sheet(trainer: Trainer, batches: Iterator[LoadedBatch]) -> Iterator[LoadedBatch]:
    """Pass the batches through. The main process draws the first one, unless the picture exists.

    Runs of a benchmark get no picture.
    """
    folder = trainer.run.path
    if not is_main() or (folder / SAMPLES).exists() or (folder / CELL).exists():
        return batches
    first = next(batches, None)
    if first is None:
        return batches
    try:
        draw(first, trainer.parts, folder / SAMPLES)
        log_picture(trainer.accelerator, folder / SAMPLES)
    except Exception as error:  # a full disk or an unknown shape must not end the training
        _log.warning("The first batch could not be drawn: %s.", error)
    return chain([first], batches)


def draw(loaded: LoadedBatch, parts: Parts, path: Path, **options: int) -> None:
    """Draw a batch to a PNG file, with the options of :func:`sample_sheet`."""
    ids = [parts.videos[row].id for row in loaded.batch.rows.tolist()]
    with atomic_path(path) as temporary:
        sample_sheet(loaded.batch, parts.manifest.classes, ids, **options).save(temporary, format="png")
