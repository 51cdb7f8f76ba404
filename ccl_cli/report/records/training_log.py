"""Metrics that a run has logged during training."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ccl_cli.errors import DataError
from ccl_cli.training.run.folder import METRICS
from ccl_cli.utils import json_text

if TYPE_CHECKING:
    from pandas import DataFrame


def curves(run: Path | str) -> DataFrame:
    """Read the metrics that a run logged during training: one row per logged step, one column per metric.

    Args:
        run: Folder of the run.

    Raises:
        DataError: the folder does not exist or has no readable metrics.
    """
    frame = read_log(Path(run))
    if frame.empty:
        raise DataError(f"'{run}' has logged no metrics.", "Name a run's folder.")
    return frame


def read_log(folder: Path) -> DataFrame:
    """Read the frame of :func:`curves`, without damaged lines; the frame is empty if no line is readable."""
    from pandas import DataFrame

    by_step: dict[int, dict[str, float]] = {}
    with suppress(OSError):
        for line in (folder / METRICS).read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError):
                entry = json_text.parse(line)
                values = {key: float(value) for key, value in entry.items() if value is not None}
                by_step.setdefault(int(entry["step"]), {}).update(values)  # scores have their own lines
    frame = DataFrame.from_dict(by_step, orient="index", dtype=float).sort_index()
    return frame.rename_axis("step").drop(columns="step", errors="ignore")
