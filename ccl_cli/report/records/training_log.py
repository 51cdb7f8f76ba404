"""Metrics that a run has logged during training."""

from __future__ import annotations

from collections import defaultdict
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
    from pandas import DataFrame

    logged = read_log(Path(run))
    if not logged:
        raise DataError(f"'{run}' has logged no metrics.", "Name a run's folder.")
    return DataFrame(logged, dtype=float).sort_index().rename_axis("step")


def read_log(folder: Path) -> dict[str, dict[int, float]]:
    """Read values by metric and step, without damaged lines; empty if no line is readable."""
    logged: dict[str, dict[int, float]] = defaultdict(dict)
    with suppress(OSError):
        for line in (folder / METRICS).read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError):
                entry = json_text.parse(line)
                step = int(entry.pop("step"))
                values = {key: float(value) for key, value in entry.items() if value is not None}
                for key, value in values.items():
                    logged[key][step] = value
    return logged
